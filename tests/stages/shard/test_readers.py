"""What `docs/shards.md` says of other readers holds: its lines read every image, of whatever format and mode."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import re
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
from stages.imaging.decode import decode_rgb
from stages.ingest.config import SourceConfig
from stages.shard.config import ShardConfig
from stages.shard.reader import Sample, ShardReader
from stages.shard.stage import Shard

DOCS = Path(__file__).resolve().parents[3] / "docs/shards.md"
READERS = dict(
    re.findall(r"^([A-Z]?\w[^\n]*):\n\n```python\n(.*?)```", DOCS.read_text("utf-8"), re.DOTALL | re.MULTILINE)
)
(WEBDATASET, LOADER, RAY, HUGGING_FACE) = READERS.values()

RGB = Image.fromarray(np.random.default_rng(3).integers(0, 255, (6, 8, 3), dtype=np.uint8)).resize((80, 60))


def _alpha() -> Image.Image:
    image = RGB.copy()
    image.putalpha(Image.linear_gradient("L").resize(RGB.size))
    return image


#: Caption -> image, format and options.
PICTURES: dict[str, tuple[Image.Image, str, dict[str, Any]]] = {
    **{f"rgb {n}": (RGB.rotate(n), "JPEG", {"quality": 80}) for n in range(6)},
    "grey": (RGB.convert("L"), "JPEG", {}),
    "cmyk": (RGB.convert("CMYK"), "JPEG", {}),
    "transparent": (_alpha(), "PNG", {}),
    "grey and transparent": (_alpha().convert("LA"), "PNG", {}),
    "palette": (RGB.convert("P"), "PNG", {"transparency": 3}),
    "deep": (Image.fromarray(np.arange(4800, dtype=np.uint16).reshape(60, 80) * 13), "PNG", {}),
    "webp": (_alpha(), "WEBP", {"lossless": True}),
}


@pytest.fixture
def inputs(
    tmp_path: Path, run_stage: Callable[..., Artifact], write_verdicts: Callable[..., None]
) -> dict[str, list[Artifact]]:
    """Inputs of the shard stage over images of every kind, really downloaded."""
    (tmp_path / "images").mkdir()
    rows = []
    for caption, (image, form, options) in PICTURES.items():
        path = f"images/{caption}"
        image.save(tmp_path / path, form, **options)
        row = {"uid": pair_uid("s", path, caption), "image_uid": image_uid("s", path), "source": "s", "path": path}
        rows.append({**row, "caption": caption, "license": "CC0", "meta": "{}"})
    rows.sort(key=lambda row: (row["image_uid"], row["uid"]))
    pq.write_table(pa.Table.from_pylist(rows, pairs_schema()), tmp_path / "pairs-00000.parquet")
    verdicts = tmp_path / "verdicts"
    verdicts.mkdir()
    kept = [{**{k: r[k] for k in ("uid", "image_uid", "source")}, "keep": True, "repeats": 1} for r in rows]
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
    raw = run_stage(
        Download(DownloadConfig(name="s", source=SourceConfig(kind="test", paths=("list",)))), {"pairs": [sealed[0]]}
    )
    return {"pairs": [sealed[0]], "raw": [raw], "verdicts": [sealed[1]]}


@pytest.fixture
def shards(inputs: dict[str, list[Artifact]], run_stage: Callable[..., Artifact]) -> Callable[..., Artifact]:
    return lambda **settings: run_stage(Shard(ShardConfig(max_samples=4, **settings)), inputs)


def tars(artifact: Artifact) -> list[str]:
    return [str(artifact.path(name)) for name in artifact.names("train-*.tar")]


def samples_of(reader: ShardReader) -> list[Sample]:
    return [reader.sample(number) for number in range(len(reader))]


def run(code: str, artifact: Artifact, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Execute a block of the docs as a module and compare what it reads with what the shards hold."""
    reader = ShardReader(artifact)
    expected = {s.uid: (np.asarray(decode_rgb(s.image_bytes)), s.caption) for s in samples_of(reader)}
    found: dict[str, tuple[Any, str]] = {}

    def use(key: str, image: Any, text: str) -> None:
        found[key] = (np.asarray(image), text)

    file = folder / "documented.py"
    file.write_text(code)
    spec = importlib.util.spec_from_file_location("documented", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    module.paths, module.use = tars(artifact), use  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "documented", module)
    monkeypatch.syspath_prepend(str(folder))
    spec.loader.exec_module(module)
    assert set(found) == set(expected)
    assert {caption for _, caption in found.values()} == set(PICTURES)
    for key, (image, caption) in expected.items():
        np.testing.assert_array_equal(found[key][0], image, err_msg=caption)
        assert found[key][1] == caption


def test_webdataset_reads_every_image(shards: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run(WEBDATASET, shards(), monkeypatch, tmp_path)


@pytest.mark.slow
def test_a_data_loader_reads_every_image(shards: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run(LOADER, shards(), monkeypatch, tmp_path)


@pytest.mark.slow
def test_ray_data_reads_every_image(
    shards: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ray_session: None
) -> None:
    import ray

    ray.data.DataContext.get_current().enable_progress_bars = False
    # A script's own functions travel by value, as those of `__main__` do.
    code = RAY.replace(
        "\n\nfor row", "\nimport sys\nray.cloudpickle.register_pickle_by_value(sys.modules[__name__])\nfor row"
    )
    run(code, shards(), monkeypatch, tmp_path)


@pytest.fixture
def hugging_face(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Any:
    monkeypatch.setenv("HF_HOME", str(tmp_path_factory.mktemp("hugging-face")))
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    return pytest.importorskip("datasets", reason="Hugging Face datasets is not a dependency")


@pytest.mark.slow
def test_hugging_face_datasets_read_every_image(
    shards: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, hugging_face: Any
) -> None:
    run(HUGGING_FACE, shards(), monkeypatch, tmp_path)


def test_with_one_format_every_image_is_an_rgb_jpeg_and_rgb_jpegs_keep_their_bytes(shards: Any) -> None:
    plain, uniform = (ShardReader(shards(**settings)) for settings in ({}, {"one_format": True, "quality": 90}))
    before = {s.uid: s for s in samples_of(plain)}
    assert {s.ext for s in before.values()} == {"jpg", "png", "webp"}
    for number in range(len(uniform)):
        sample, record = uniform.sample(number), uniform.meta(number)
        with Image.open(io.BytesIO(sample.image_bytes)) as image:
            assert (sample.ext, image.format, image.mode) == ("jpg", "JPEG", "RGB")
            assert image.size == (record["width"], record["height"])
        assert hashlib.sha256(sample.image_bytes).hexdigest() == record["sha256"]
        source = before[sample.uid].image_bytes
        assert (sample.image_bytes == source) == str(sample.caption).startswith("rgb")
        seen, was = (np.asarray(decode_rgb(data), dtype=float) for data in (sample.image_bytes, source))
        assert np.abs(seen - was).mean() < 16  # a dithered palette loses most


def test_with_one_format_scaled_images_are_rgb_jpegs_too(shards: Any) -> None:
    for sample in samples_of(ShardReader(shards(one_format=True, longest_side=40))):
        with Image.open(io.BytesIO(sample.image_bytes)) as image:
            assert (sample.ext, image.format, image.mode, image.size) == ("jpg", "JPEG", "RGB", (40, 30))


def test_one_format_that_is_not_asked_for_leaves_fingerprints_alone() -> None:
    from pipelines.fingerprint import fingerprinted

    assert "one_format" not in fingerprinted(ShardConfig())
    assert fingerprinted(ShardConfig(one_format=True))["one_format"] is True


@pytest.mark.slow
def test_with_one_format_the_defaults_of_every_reader_work(shards: Any, ray_session: None) -> None:
    import ray
    from torch.utils.data import DataLoader
    from webdataset import WebDataset

    paths = tars(shards(one_format=True))
    ray.data.DataContext.get_current().enable_progress_bars = False
    by_webdataset = WebDataset(paths, shardshuffle=False).decode("pil")
    by_torch = DataLoader(WebDataset(paths, shardshuffle=False).decode("rgb8").to_tuple("txt", "jpg"), batch_size=13)
    read = {
        "webdataset": {s["txt"]: np.asarray(s["jpg"]) for s in by_webdataset},
        "torch": {text: image for batch in by_torch for text, image in zip(batch[0], batch[1].numpy(), strict=True)},
        "ray": {row["txt"]: row["jpg"] for row in ray.data.read_webdataset(paths).take_all()},
    }
    for reader, images in read.items():
        assert set(images) == set(PICTURES), reader
        assert {image.shape for image in images.values()} == {(60, 80, 3)}, reader


@pytest.mark.slow
def test_with_one_format_hugging_face_datasets_need_no_columns(shards: Any, hugging_face: Any) -> None:
    paths = tars(shards(one_format=True))
    rows = list(hugging_face.load_dataset("webdataset", data_files=paths, split="train", streaming=True))
    assert {row["txt"] for row in rows} == set(PICTURES)
    assert all(row["jpg"].mode == "RGB" for row in rows)
