"""Our shards are anyone's WebDataset, anyone's are readable by us, and no picture loses twice on its way."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from stages.base.artifact import Artifact
from stages.base.pairs import image_uid, pair_uid, pairs_schema
from stages.download.config import DownloadConfig
from stages.download.stage import Download
from stages.ingest.config import SourceConfig
from stages.shard.check import check, check_shard
from stages.shard.config import ShardConfig
from stages.shard.reader import ShardReader
from stages.shard.stage import Shard


@pytest.mark.slow
def test_tars_of_img2dataset_are_read_and_checked(tmp_path: Path) -> None:
    photographs = tmp_path / "photographs"
    photographs.mkdir()
    rows = []
    for n in range(12):
        path = photographs / f"{n}.jpg"
        Image.effect_noise((60 + n, 50), 60).convert("RGB").save(path, quality=90)
        rows.append({"url": path.as_uri(), "caption": f"number {n}"})
    rows.append({"url": (photographs / "none.jpg").as_uri(), "caption": "never seen"})
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "list.parquet")
    words = ["--url_list", str(tmp_path / "list.parquet"), "--input_format", "parquet", "--url_col", "url"]
    words += ["--caption_col", "caption", "--output_format", "webdataset", "--output_folder", str(tmp_path / "out")]
    words += ["--image_size", "48", "--number_sample_per_shard", "5", "--processes_count", "1", "--thread_count", "2"]
    words += ["--enable_wandb", "False"]
    command = [sys.executable, "-c", "from img2dataset.main import main; main()", *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    reader = ShardReader(tmp_path / "out")
    assert reader.shards == ["00000.tar", "00001.tar", "00002.tar"]
    assert sorted(reader.caption(i) for i in range(len(reader))) == sorted(f"number {n}" for n in range(12))
    for i in range(len(reader)):
        assert Image.open(io.BytesIO(reader.sample(i).image_bytes)).size == (48, 48)
        assert reader.meta(i)["caption"] == reader.caption(i)
    report = check(reader, lambda numbers, by_index: (check_shard(reader, n, by_index) for n in numbers))
    assert (report.samples, report.problems) == (12, [])


@pytest.fixture
def photographs(
    tmp_path_factory: pytest.TempPathFactory,
    run_stage: Callable[..., Artifact],
    write_verdicts: Callable[..., None],
) -> tuple[dict[str, list[Artifact]], dict[str, bytes]]:
    """Inputs of the shard stage over downloaded JPEGs, and the bytes as they lay at the source, by uid.

    One is small, one large, one large and lying on its side (EXIF orientation 6).
    """
    tmp_path = tmp_path_factory.mktemp("photographs")
    (tmp_path / "images").mkdir()
    rows, fetched = [], {}
    for name, size, orientation in (("small", (40, 30), 1), ("large", (400, 300), 1), ("lying", (400, 300), 6)):
        pixels = np.random.default_rng(len(name)).integers(0, 255, (size[1], size[0], 3), np.uint8)
        exif = Image.Exif()
        exif[0x0112] = orientation
        stored = io.BytesIO()
        Image.fromarray(pixels).save(stored, "jpeg", exif=exif if orientation != 1 else b"", quality=80)
        path = f"images/{name}.jpg"
        (tmp_path / path).write_bytes(stored.getvalue())
        uid = pair_uid("s", path, name)
        fetched[uid] = stored.getvalue()
        row = {"uid": uid, "image_uid": image_uid("s", path), "source": "s", "path": path, "caption": name}
        rows.append({**row, "license": "CC0", "meta": "{}"})
    rows.sort(key=lambda row: (row["image_uid"], row["uid"]))
    pq.write_table(pa.Table.from_pylist(rows, pairs_schema()), tmp_path / "pairs-00000.parquet")
    kept = [{**{k: r[k] for k in ("uid", "image_uid", "source")}, "keep": True, "repeats": 1} for r in rows]
    verdicts = tmp_path / "verdicts"
    verdicts.mkdir()
    sealed: list[Artifact] = []
    for folder, names in (
        (tmp_path, ["pairs-00000.parquet", *(r["path"] for r in rows)]),
        (verdicts, ["verdicts-00000.parquet", "ranges.json"]),
    ):
        if sealed:
            write_verdicts(verdicts, kept, sealed)
        mark = hashlib.sha256(names[0].encode()).hexdigest()
        manifest = {"fingerprint": mark, "counts": {}, "files": [{"name": name} for name in names]}
        (folder / "manifest.json").write_text(json.dumps(manifest))
        sealed.append(Artifact(str(folder)))
    config = DownloadConfig(name="s", source=SourceConfig(kind="test", paths=("list",)))
    raw = run_stage(Download(config), {"pairs": [sealed[0]]})
    return {"pairs": [sealed[0]], "raw": [raw], "verdicts": [sealed[1]]}, fetched


def as_jpg(name: str) -> str:
    """A member's name with the extension of JPEG for every image: Ray Data wants samples with the same columns."""
    stem, _, extension = name.rpartition(".")
    return f"{stem}.jpg" if extension in ("png", "webp") else name


@pytest.mark.slow
def test_ray_data_reads_the_shards(
    world: Any, photographs: Any, run_stage: Callable[..., Artifact], ray_session: None
) -> None:
    import ray

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False

    def rows(inputs: Any, **options: Any) -> dict[str, Any]:
        artifact = run_stage(Shard(ShardConfig()), inputs)
        paths = [str(artifact.path(name)) for name in artifact.names("train-*.tar")]
        return {row["__key__"]: row for row in ray.data.read_webdataset(paths, **options).take_all()}

    # JPEGs alone are read as they are; several formats in one tar need one name for the column.
    plain, mixed = rows(photographs[0]), rows(world.inputs(), filerename=as_jpg)
    assert set(plain) == set(photographs[1])
    assert {uid: row["txt"] for uid, row in mixed.items()} == world.captions
    for uid, row in {**plain, **mixed}.items():
        assert row["json"]["uid"] == uid
        assert row["jpg"].shape[:2] == (row["json"]["height"], row["json"]["width"])


@pytest.mark.slow
def test_ray_data_reads_shards_with_images_without_text_by_the_members_that_all_have(
    mixed_world: Any, shard: Callable[..., Artifact], ray_session: None
) -> None:
    import ray

    ray.data.DataContext.get_current().enable_progress_bars = False
    artifact = shard(mixed_world.inputs(), max_samples=1000)
    paths = [str(artifact.path(name)) for name in artifact.names("train-*.tar")]
    read = ray.data.read_webdataset(paths, filerename=as_jpg, suffixes=["jpg", "json"])
    assert {row["__key__"]: row["json"]["caption"] or "" for row in read.take_all()} == mixed_world.captions


@pytest.mark.parametrize("side", [None, 100])
def test_no_picture_is_compressed_with_loss_twice(
    photographs: Any, run_stage: Callable[..., Artifact], side: int | None
) -> None:
    inputs, fetched = photographs
    reader = ShardReader(run_stage(Shard(ShardConfig(longest_side=side)), inputs))
    found = {sample.caption: sample for sample in reader.iterate(0)}
    # Within the bound, or without one: the very bytes of the source.
    assert found["small"].image_bytes == fetched[found["small"].uid]
    if side is None:
        assert found["large"].image_bytes == fetched[found["large"].uid]
        # Made upright by the download, once; the shard takes its bytes as they are.
        (tar,) = inputs["raw"][0].names("raw-*.tar")
        assert found["lying"].image_bytes in inputs["raw"][0].path(tar).read_bytes()
        return
    assert (found["large"].ext, found["lying"].ext) == ("jpg", "png")
    for name in ("large", "lying"):
        assert max(Image.open(io.BytesIO(found[name].image_bytes)).size) == 100
    assert Image.open(io.BytesIO(found["lying"].image_bytes)).size == (75, 100)
