"""The account of what was read: rejects of all units, numbered by file."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.ingest.account import write_rejects


@pytest.mark.parametrize("case", range(8))
def test_rejects_are_in_order_of_files_and_rows_however_the_units_cut_the_files(case: int, tmp_path: Path) -> None:
    draw = random.Random(case)
    names = [f"list-{draw.randrange(10**6)}" for _ in range((1, 3, 40)[case % 3])]
    expected: list[tuple[str, int, str]] = []
    before: Counter[str] = Counter()
    for unit in range(case * 2):
        own = [names[unit % len(names)]] if case % 2 else draw.sample(names, draw.randint(1, len(names)))
        rows = {file: draw.randint(0, 200) for file in own}
        rejected = [(file, row) for file, n in rows.items() for row in range(n) if draw.random() < 0.3]
        reasons = [draw.choice(["no_caption", "no_url"]) for _ in rejected]
        expected += [(file, before[file] + row, why) for (file, row), why in zip(rejected, reasons, strict=True)]
        before.update(rows)
        (tmp_path / f"unit-{unit:06d}.json").write_text(json.dumps({"rows": rows}))
        table = pa.table(
            {
                "file": pa.array([file for file, _ in rejected], pa.string()),
                "row": pa.array([row for _, row in rejected], pa.int64()),
                "reason": pa.array(reasons, pa.string()),
            }
        )
        pq.write_table(table, tmp_path / f"rejects-{unit:06d}.parquet")
    counts = write_rejects(tmp_path, tmp_path, {"row_group_size": 64})
    found = pq.read_table(tmp_path / "rejects.parquet")
    assert [tuple(row.values()) for row in found.to_pylist()] == sorted(expected)
    assert counts == Counter(why for _, _, why in expected)
    groups = pq.read_metadata(tmp_path / "rejects.parquet").num_row_groups
    assert groups == max(1, -(-len(expected) // 64))
