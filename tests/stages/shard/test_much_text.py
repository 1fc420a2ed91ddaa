"""More text than one Arrow column of 32-bit offsets can hold passes through the plan of the shards, range by range."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.process_memory import measured
from benchmarks.scale_artifacts import hexadecimal, mix, seal
from stages.base.artifact import Artifact
from stages.base.pairs import pairs_schema
from stages.download.attempts import attempts_schema
from stages.shard.gather import gather, samples_of

ROOT = Path(__file__).parents[3]
PARTS, PER_PART, CHARACTERS = 48, 1024, 65_536
#: 400 MiB of text in a range, 256 MiB in a bucket; 3 GiB in all.
PARTS_PER_RANGE, PER_BUCKET = 6, 4096


@pytest.mark.slow
def test_3_gib_of_texts_in_the_memory_of_a_range(tmp_path: Path) -> None:
    code = "import sys; from tests.stages.shard.test_much_text import plan; plan(sys.argv[1])"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = measured([sys.executable, "-c", code, str(tmp_path)], tmp_path / "log", ROOT, environment)
    assert run.code == 0, (tmp_path / "log").read_text()[-2000:]
    assert run.peaks.driver_anonymous < 1800  # MB; the texts are 3,221


def plan(folder: str) -> None:
    """Gather all samples of a selection that keeps everything, and read some of all of them."""
    inputs = _inputs(Path(folder))
    samples = samples_of(inputs["verdicts"][0], f"{folder}/scratch", PER_BUCKET)
    gather(inputs, 0, samples)
    counts = [len(lengths) for lengths in samples.lengths()]
    assert sum(counts) == PARTS * PER_PART
    some = [(bucket, row, row + 1) for bucket, count in enumerate(counts) for row in range(0, count, 100)]
    parts = Counter()
    for row in samples.rows(some):
        assert row["caption"] == chr(ord("0") + int(row["shard"])) * CHARACTERS
        parts[row["shard"]] += 1
    assert len(parts) == PARTS  # every part has samples everywhere


def _inputs(folder: Path) -> dict[str, tuple[Artifact, ...]]:
    folders = {role: folder / role for role in ("pairs", "raw", "verdicts")}
    for made in folders.values():
        made.mkdir()
    verdicts = []
    for part in range(PARTS):
        rows = np.arange(part * PER_PART, (part + 1) * PER_PART)
        uid = hexadecimal(np.stack([mix(rows, 1), mix(rows, 2)], axis=1).view(np.uint8))
        image = pa.array(sorted(hexadecimal(np.stack([mix(rows, 3), mix(rows, 4)], axis=1).view(np.uint8)).to_pylist()))
        text = chr(ord("0") + part) * CHARACTERS  # one text in a part: a dictionary holds it once
        _write(folders["pairs"] / f"pairs-{part:05d}.parquet", pairs_schema(), uid=uid, image_uid=image, caption=text)
        attempts = {"image_uid": image, "status": "success", "ext": "jpg", "width": 9, "height": 9, "offset": 512}
        attempts |= {"length": 100, "sha256": "0" * 64, "source_sha256": "0" * 64}
        _write(folders["raw"] / f"attempts-{part:05d}.parquet", attempts_schema(), **attempts)
        verdicts.append(pa.table({"uid": uid, "image_uid": image}))
    ranges = []
    for number, begin in enumerate(range(0, PARTS, PARTS_PER_RANGE)):
        table = pa.concat_tables(verdicts[begin : begin + PARTS_PER_RANGE])
        columns = {
            "source": pa.repeat(pa.scalar("texts"), len(table)),
            "keep": pa.repeat(pa.scalar(True), len(table)),
            "reason": pa.nulls(len(table), pa.string()),
            "repeats": pa.repeat(pa.scalar(1, pa.int16()), len(table)),
        }
        for name, column in columns.items():
            table = table.append_column(name, column)
        pq.write_table(table, folders["verdicts"] / f"verdicts-{number:05d}.parquet")
        parts = [[0, f"{part:05d}"] for part in range(begin, begin + PARTS_PER_RANGE)]
        ranges.append({"parts": parts, "images": len(table), "pairs": len(table)})
    (folders["verdicts"] / "ranges.json").write_text(json.dumps(ranges))
    for made in folders.values():
        seal(made, {"fingerprint": made.name, "config": {"name": "texts", "source": {}}}, {"kept": PARTS * PER_PART})
    return {role: (Artifact(str(made)),) for role, made in folders.items()}


def _write(path: Path, schema: pa.Schema, **columns: object) -> None:
    arrays = []
    for field in schema:
        value = columns.get(field.name, None if field.nullable else "texts")
        arrays.append(value if isinstance(value, pa.Array) else pa.repeat(pa.scalar(value, field.type), PER_PART))
    pq.write_table(pa.table(arrays, schema=schema), path, compression="zstd")
