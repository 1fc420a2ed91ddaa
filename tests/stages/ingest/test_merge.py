"""The table of pairs: identity, repeats, order, and which file a pair goes to."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from stages.base.pairs import image_uid, pair_uid, pairs_schema


@pytest.fixture
def listed(tsv: Any) -> dict[str, Any]:
    """200 rows, every pair twice, of 25 images."""
    lines = [f"caption {n % 100}\thttp://x.test/{n % 25}.jpg".encode() for n in range(200)]
    return {"kind": "cc3m", "paths": [tsv(*lines)]}


def test_schema_and_uids_are_those_of_the_contract(ingest: Any, pairs: Any, listed: dict[str, Any]) -> None:
    artifact = ingest(listed)
    assert pq.read_schema(artifact.path("pairs-00000.parquet")).equals(pairs_schema())
    for row in pairs(artifact):
        assert row["uid"] == pair_uid("test", row["url"], row["caption"])
        assert row["image_uid"] == image_uid("test", row["url"])
    # Fixed for ever: a published list of uids must stay good.
    known = {row["caption"]: row["uid"] for row in pairs(artifact)}
    assert (
        known["caption 0"] == pair_uid("test", "http://x.test/0.jpg", "caption 0") == "c20360f957782a8d72d4b72d0966f393"
    )


def test_a_pair_listed_twice_is_one_sample_and_the_repeat_is_counted(ingest: Any, listed: dict[str, Any]) -> None:
    for step in (10_000, 64):
        counts = ingest(listed, bytes_per_partition=step).counts
        told = {name: counts[name] for name in ("rows", "pairs", "images", "repeats", "rejects")}
        assert told == {"rows": 200, "pairs": 100, "images": 25, "repeats": 100, "rejects": 0}


@pytest.mark.parametrize("size", [1, 7, 8, 1000])
def test_all_pairs_of_an_image_are_in_one_file_and_files_are_as_full_as_asked(
    ingest: Any, listed: dict[str, Any], size: int
) -> None:
    artifact = ingest(listed, pairs_per_file=size, bytes_per_partition=500)
    tables = [pq.read_table(artifact.path(name)) for name in artifact.names("pairs-*")]
    images = [set(table["image_uid"].to_pylist()) for table in tables]
    assert sum(map(len, images)) == 25
    assert all(table.num_rows >= size for table in tables[:-1])
    assert all(table.num_rows < size + 4 for table in tables)  # four captions an image
    keys = [(r["image_uid"], r["uid"]) for table in tables for r in table.to_pylist()]
    assert all(a < b for a, b in pairwise(keys))


@pytest.mark.parametrize("size", [1, 7, 1000])  # 1000: one file out of all steps
@pytest.mark.parametrize(
    "bounds", [{"_STEP_ROWS": 3}, {"_STEP_BYTES": 400}, {"_STEP_ROWS": 9, "_FAN_IN": 2}, {"_PART_GROUP": 2}]
)
def test_the_files_do_not_depend_on_how_the_merge_is_divided(
    ingest: Any,
    contents: Any,
    listed: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    size: int,
    bounds: dict[str, int],
) -> None:
    from stages.ingest import merge

    whole = contents(ingest(listed, pairs_per_file=size))
    for name, value in bounds.items():
        monkeypatch.setattr(merge, name, value)
    assert contents(ingest(listed, pairs_per_file=size, bytes_per_partition=300)) == whole


def test_ray_tasks_merge_as_one_process_does(
    ray_session: None,
    monkeypatch: pytest.MonkeyPatch,
    ingest: Any,
    contents: Any,
    listed: dict[str, Any],
) -> None:
    from stages.base.tasks import InProcess
    from stages.ingest import merge

    monkeypatch.setattr(merge, "_STEP_ROWS", 30)
    monkeypatch.setattr(merge, "_FAN_IN", 3)
    on_ray = contents(ingest(listed, pairs_per_file=7, bytes_per_partition=300))
    monkeypatch.setattr(merge, "tasks_for", lambda calls: InProcess())
    assert contents(ingest(listed, pairs_per_file=7, bytes_per_partition=300)) == on_ray


def test_files_begin_where_one_pass_over_all_images_would_let_them() -> None:
    from stages.ingest.merge import _file_starts

    drawn = np.random.default_rng(0)
    of_image = drawn.integers(1, 6, 400).astype(np.int32)
    expected, last, row = [], 0, 0
    for rows in of_image.tolist():
        if row - last >= 10:
            expected.append(row)
            last = row
        row += rows
    for cuts in ([], [1, 2, 3], [0, 50, 50, 399], sorted(drawn.integers(0, 400, 20).tolist())):
        found, since, before = [], 0, 0
        for step in np.split(of_image, cuts):
            begun, since = _file_starts(step, since, 10)
            found += [before + start for start in begun]
            before += int(step.sum())
        assert found == expected
        assert since == row - last


def test_an_empty_list_gives_an_empty_table(ingest: Any, pairs: Any, tsv: Any) -> None:
    artifact = ingest({"kind": "cc3m", "paths": [tsv()]})
    assert artifact.names("pairs-*") == ["pairs-00000.parquet"]
    assert pairs(artifact) == []
