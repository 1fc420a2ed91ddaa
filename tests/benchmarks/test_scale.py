"""The scale benchmark's artifacts are what the stages would have written, and its figures what processes held."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from benchmarks.process_memory import measured
from benchmarks.scale import growth
from benchmarks.scale_artifacts import Web, hexadecimal, urls
from stages.base.pairs import image_uid, pair_uid, pairs_schema
from stages.download.attempts import attempts_schema
from stages.ingest.laion import LaionConfig
from stages.signals import registry, tables
from stages.signals.config import SignalsConfig

ROWS = 3000
PER_PART = 1000


@pytest.fixture(scope="module")
def web() -> Web:
    return Web(ROWS, {"laion": 0.9, "other": 0.1}, SignalsConfig())


@pytest.fixture(scope="module")
def measured_parts(web: Web, tmp_path_factory: pytest.TempPathFactory) -> tuple[pa.Table, pa.Table, pa.Table]:
    """Attempts, images and pairs of the first source."""
    folder = tmp_path_factory.mktemp("scale")
    web.write_lists(folder / "lists", workers=1)
    pairs, raw, signals = (folder / name for name in ("pairs", "raw", "signals"))
    for made in (pairs, raw, signals):
        made.mkdir()
    listed = pq.read_table(folder / "lists" / "laion")
    _ingested(listed, pairs)
    fetched, counts = web.write_measured(pairs, raw, signals, workers=1)
    attempts, images, texts = (
        pa.concat_tables([pq.read_table(file) for file in sorted(where.glob(pattern))])
        for where, pattern in ((raw, "attempts-*"), (signals, "images-*"), (signals, "pairs-*"))
    )
    assert fetched["images"] == attempts.num_rows
    assert fetched["success"] == counts["images"] == images.num_rows
    assert counts["pairs"] == texts.num_rows
    return attempts, images, texts


def _ingested(listed: pa.Table, folder: Path) -> None:
    """The list as ingest writes it: sorted by image, in several files."""
    rows = {}
    for url, text in zip(listed["URL"].to_pylist(), listed["TEXT"].to_pylist(), strict=True):
        uid, image = pair_uid("laion", url, text), image_uid("laion", url)
        rows[uid] = {"uid": uid, "image_uid": image, "source": "laion", "url": url, "caption": text, "meta": "{}"}
    table = pa.Table.from_pylist(list(rows.values()), pairs_schema()).sort_by(
        [("image_uid", "ascending"), ("uid", "ascending")]
    )
    for number, start in enumerate(range(0, table.num_rows, PER_PART)):
        pq.write_table(table.slice(start, PER_PART), folder / f"pairs-{number:05d}.parquet")


def test_the_lists_are_laions(web: Web, tmp_path: Path) -> None:
    web.write_lists(tmp_path, workers=1)
    listed = pq.read_table(tmp_path / "laion")
    assert listed.num_rows == 0.9 * ROWS
    assert pq.read_table(tmp_path / "other").num_rows == 0.1 * ROWS
    assert LaionConfig(kind="laion", paths=("x",)).url_column is None  # found by their names
    assert {"URL", "TEXT"} <= set(listed.column_names)
    words = pc.count_substring(listed["TEXT"], " ").to_numpy() + 1
    assert words.min() >= 1
    assert 8 < words.mean() < 12
    assert len(set(listed["URL"].to_pylist())) == pytest.approx(0.98 * 0.9 * ROWS, rel=0.01)


def test_rows_are_those_of_the_stages_in_schema_and_order(measured_parts: tuple[pa.Table, pa.Table, pa.Table]) -> None:
    attempts, images, texts = measured_parts
    assert attempts.schema.equals(attempts_schema())
    assert attempts["image_uid"].to_pylist() == sorted(attempts["image_uid"].to_pylist())
    success = attempts.filter(pc.equal(attempts["status"], "success"))
    assert 0.85 < success.num_rows / attempts.num_rows < 0.91
    assert success["offset"].null_count == success["sha256"].null_count == 0
    assert images["image_uid"].to_pylist() == success["image_uid"].to_pylist()
    families = registry.build(SignalsConfig())
    for table, name in ((images, "images"), (texts, "pairs")):
        for family in families:
            if family.table == name:
                for field in tables.schema(family):
                    assert table.schema.field(field.name).type == field.type
    broken = images.filter(pc.invert(images["decoded"]))
    whole = images.filter(images["decoded"])
    assert [name for name in whole.column_names if whole[name].null_count] == []
    assert broken["width"].null_count == broken["phash"].null_count == broken.num_rows > 0


def test_equal_pixels_have_equal_hashes_across_parts(web: Web) -> None:
    row = np.arange(ROWS, dtype=np.uint64)
    shown = web._likeness(row)[0]
    copies = np.flatnonzero(shown != row)
    assert len(copies) == pytest.approx(0.02 * ROWS, rel=0.4)
    parts = [web._image_columns(row[start : start + 1000]) for start in range(0, ROWS, 1000)]
    names = ("phash", "phash_rgb", "phash_d4", "thumbnail", "width", "height", "brightness")
    seen: dict[str, tuple[object, ...]] = {}
    equal = 0
    for columns in parts:
        values = [pa.array(columns[name]).to_pylist() for name in names]
        for digest, *looks in zip(columns["pixel_sha256"].to_pylist(), *values, strict=True):
            equal += digest in seen
            assert seen.setdefault(digest, tuple(looks)) == tuple(looks)
    assert equal > 40


def test_near_copies_differ_by_a_few_bits_and_little_light(web: Web) -> None:
    row = np.arange(ROWS, dtype=np.uint64)
    shown, look, change, pixels = web._likeness(row)
    plain = (shown == row) & (look == row) & (pixels == row)
    near = np.flatnonzero((shown == row) & (change == 1))
    near = near[plain[look[near].astype(int)]]
    of = look[near].astype(int)
    columns = web._image_columns(row)
    hashes = np.array([int(h, 16) for h in columns["phash"].to_pylist()], dtype=np.uint64)
    bits = np.bitwise_count(hashes[near] ^ hashes[of])
    assert len(near) > 50
    assert bits.max() <= 3
    assert bits.min() >= 1
    light = np.array([list(t) for t in columns["thumbnail"].to_pylist()], dtype=float)
    assert np.abs(light[near] - light[of]).mean(axis=1).max() < 2.0


def test_rows_can_be_recovered_from_urls() -> None:
    numbers = np.array([0, 7, 123_456_789_012], dtype=np.uint64)
    listed = urls(numbers).to_pylist()
    assert [int(url[-16:-4]) for url in listed] == numbers.tolist()
    assert hexadecimal(np.array([[0, 255, 16]], dtype=np.uint8)).to_pylist() == ["00ff10"]


def test_peaks_are_of_the_driver_and_of_what_it_starts(tmp_path: Path) -> None:
    child = "import time; x = b'1' * 80_000_000; time.sleep(1)"
    code = f"import subprocess, sys, time; x = b'1' * 160_000_000; subprocess.run([sys.executable, '-c', {child!r}])"
    run = measured([sys.executable, "-c", code], tmp_path / "log", tmp_path, os.environ, interval=0.05)
    assert run.code == 0
    assert 160 < run.peaks.driver < 200
    assert 80 < run.peaks.worker < 120
    assert 240 < run.peaks.tree < 320
    assert run.peaks.processes == 1
    assert 0 < run.cpu_seconds < run.seconds + 1


def test_growth_leaves_out_what_failed() -> None:
    peaks = {f"peak_{key}_mb": 10.0 for key in ("driver", "worker", "tree", "driver_anonymous", "worker_anonymous")}
    less = {"index": {"seconds": 1.0, **peaks}, "select": {"seconds": 1.0, **peaks}, "why": {"failed": "x"}}
    more = {"index": {"seconds": 9.0, **peaks, "peak_driver_mb": 12.0}, "select": {"failed": "y"}}
    ratios = growth(less, more)
    assert list(ratios) == ["index"]
    assert (ratios["index"]["seconds"], ratios["index"]["peak_driver_mb"]) == (9.0, 1.2)
    assert json.loads(json.dumps(ratios)) == ratios
