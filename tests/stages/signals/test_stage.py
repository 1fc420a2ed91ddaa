"""The `signals` stage over a small source."""

from __future__ import annotations

import hashlib
import io

import imagehash
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from stages.base.contract import UserError
from stages.base.pairs import image_uid
from stages.signals.config import SignalsConfig
from stages.signals.stage import Signals


def read(artifact, pattern: str) -> list[dict]:
    tables = [pq.read_table(artifact.path(name)) for name in artifact.names(pattern)]
    return pa.concat_tables(tables).to_pylist()


@pytest.fixture
def signals(source, run_stage):
    pairs, raw = source
    return run_stage(Signals(SignalsConfig(families=("cheap",))), {"pairs": [pairs], "raw": [raw]})


def test_every_fetched_image_has_one_row_and_a_failed_one_none(signals) -> None:
    rows = read(signals, "images-*.parquet")
    assert {row["image_uid"] for row in rows} == {
        image_uid("laion", f"http://a/{n}") for n in ("1.jpg", "2.png", "3.png", "4.png")
    }
    assert len(rows) == 4
    assert signals.counts == {"images": 4, "undecodable": 1, "pairs": 5}


def test_rows_of_a_file_are_sorted(signals) -> None:
    for name in signals.names("*.parquet"):
        table = pq.read_table(signals.path(name))
        key = "image_uid" if name.startswith("images") else "uid"
        assert table[key].to_pylist() == sorted(table[key].to_pylist())


def test_an_image_is_measured_as_stored(signals, scene, as_bytes) -> None:
    (row,) = [r for r in read(signals, "images-*") if r["image_uid"] == image_uid("laion", "http://a/1.jpg")]
    data = as_bytes(scene(1, 120, 80), "JPEG")
    rgb = Image.open(io.BytesIO(data)).convert("RGB")
    assert (row["width"], row["height"], row["bytes"]) == (120, 80, len(data))
    assert row["aspect_ratio"] == 1.5
    assert row["sha256"] == hashlib.sha256(data).hexdigest()
    assert row["phash"] == str(imagehash.phash(rgb))
    assert row["phash_rgb"] == "".join(str(imagehash.phash(channel)) for channel in rgb.split())
    assert len(row["thumbnail"]) == 192
    assert row["source"] == "laion"


def test_bytes_that_hold_no_picture_keep_their_row(signals) -> None:
    (row,) = [r for r in read(signals, "images-*") if not r["decoded"]]
    assert row["bytes"] == len(b"not an image at all")
    assert row["phash"] is None
    assert row["width"] is None


def test_a_caption_is_measured(signals) -> None:
    rows = read(signals, "pairs-*")
    german = next(row for row in rows if row["language"] == "de")
    assert (german["words"], german["characters"], german["source"]) == (6, 29, "laion")
    listed = next(row for row in rows if row["similarity"] is not None)
    assert listed["similarity"] == pytest.approx(0.31)
    assert listed["unsafe"] == pytest.approx(0.02)
    assert listed["watermark"] is None
    repeated = next(row for row in rows if row["repetition"] > 0)
    assert repeated["repetition"] == 0.5


def test_the_same_inputs_give_the_same_bytes_in_any_order_of_work(source, run_stage) -> None:
    pairs, raw = source
    inputs = {"pairs": [pairs], "raw": [raw]}
    once = run_stage(Signals(SignalsConfig()), inputs)
    again = run_stage(Signals(SignalsConfig()), inputs, reverse=True)
    assert once.manifest["files"] == again.manifest["files"]


def test_a_shard_that_lost_its_end_is_named(source, run_stage) -> None:
    pairs, raw = source
    for name in raw.names("*.tar"):
        with open(raw.path(name), "r+b") as shard:
            shard.truncate(600)
    with pytest.raises(UserError, match=r"raw-0000\d.tar: image [0-9a-f]{32} lies beyond the end"):
        run_stage(Signals(SignalsConfig()), {"pairs": [pairs], "raw": [raw]})


def test_an_image_only_source_has_signals_of_its_images_and_none_of_a_text(
    fetched_source, run_stage, scene, as_bytes
) -> None:
    listed = {"similarity": 0.31, "punsafe": 0.02, "WIDTH": 640.0}
    images = [
        ("http://a/1.jpg", as_bytes(scene(1, 120, 80)), [""], listed),
        ("http://a/2.jpg", as_bytes(scene(2)), [""]),
    ]
    pairs, raw = fetched_source("images", images, 1)
    signals = run_stage(Signals(SignalsConfig(families=("cheap",))), {"pairs": [pairs], "raw": [raw]})
    assert all(row["width"] and row["phash"] for row in read(signals, "images-*"))
    rows = sorted(read(signals, "pairs-*"), key=lambda row: row["unsafe"] is None)
    measured = [{name: value for name, value in row.items() if value is not None} for row in rows]
    assert [set(row) - {"uid", "image_uid", "source"} for row in measured] == [{"unsafe", "listed_width"}, set()]
