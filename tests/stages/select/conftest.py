"""Fixtures of the `select` tests: index artifacts made by hand, in the documented schema, and by the real stages."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from stages.base.artifact import Artifact
from stages.index.config import IndexConfig
from stages.index.reader import Index
from stages.index.schema import BENCHMARK_EXACT, BENCHMARK_NEAR, BENCHMARK_TEXTS, IMAGES, NEAR, PAIRS
from stages.index.stage import BuildIndex
from stages.signals.config import SignalsConfig
from stages.signals.stage import Signals

#: What a fetched image and its pair look like unless a test says otherwise.
GOOD_IMAGE: dict[str, Any] = {
    "status": "success",
    "host": "h",
    "shard": 0,
    "offset": 0,
    "length": 9000,
    "decoded": True,
    "bytes": 9000,
    "format": "JPEG",
    "width": 300,
    "height": 200,
    "aspect_ratio": 1.5,
    "entropy": 5.0,
    "sharpness": 100.0,
    "nsfw": 0.1,
    "text_coverage": 0.1,
    "faces": 1,
}
GOOD_PAIR: dict[str, Any] = {
    "characters": 20,
    "words": 5,
    "repetition": 0.0,
    "letters": 0.8,
    "digits": 0.0,
    "language": "en",
    "language_score": 0.9,
    "similarity": 0.3,
    "similarity_l14": 0.3,
    "clip_similarity": 0.3,
    "aesthetic": 5.0,
    "unsafe": 0.1,
    "watermark": 0.1,
}
#: What of it is null in an image-only source.
OF_THE_TEXT = [name for name in GOOD_PAIR if name not in ("aesthetic", "unsafe", "watermark")]
_TYPES = {
    **{name: pa.int32() for name in ("width", "height", "faces", "characters", "words")},
    **{name: pa.string() for name in ("format", "language")},
    "bytes": pa.int64(),
    "aspect_ratio": pa.float64(),
}


def _table(rows: Sequence[Mapping[str, Any]], first: pa.Schema, columns: Sequence[str]) -> pa.Table:
    fields = [*first, *(pa.field(name, _TYPES.get(name, pa.float32())) for name in columns if name not in first.names)]
    return pa.Table.from_pylist([dict(row) for row in rows], pa.schema(fields))


def write_index(
    folder: Path,
    images: pa.Table,
    pairs: pa.Table,
    sources: Mapping[str, bool],
    near: Mapping[str, pa.Table] | None = None,
    radius: Mapping[str, int] | None = None,
    exact: pa.Table | None = None,
    benchmark_near: Mapping[str, pa.Table] | None = None,
    texts: pa.Table | None = None,
    image_only: Sequence[str] = (),
) -> Artifact:
    """An index artifact of these tables; `sources` says of each whether it is private."""
    radius = dict(radius or {"phash": 8})
    files = {"images.arrow": images, "pairs.arrow": pairs}
    files["benchmark-exact.arrow"] = exact if exact is not None else BENCHMARK_EXACT.empty_table()
    files["benchmark-texts.arrow"] = texts if texts is not None else BENCHMARK_TEXTS.empty_table()
    for name in radius:
        files[f"near-{name}.arrow"] = (near or {}).get(name, NEAR.empty_table())
        files[f"benchmark-{name}.arrow"] = (benchmark_near or {}).get(name, BENCHMARK_NEAR.empty_table())
    for name, table in files.items():
        with pa.ipc.new_file(str(folder / name), table.schema) as writer:
            writer.write_table(table)
    listed = [
        {"name": name, "private": private, **({"image_only": True} if name in image_only else {})}
        for name, private in sources.items()
    ]
    (folder / "sources.json").write_text(json.dumps(listed))
    names = [{"name": name} for name in sorted([*files, "sources.json"])]
    config = {"radius": radius, "ngram": 8, "benchmarks": {}, "private_sources": []}
    manifest = {"stage": "index", "fingerprint": "0" * 64, "config": config, "counts": {}, "files": names}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return Artifact(str(folder))


@pytest.fixture(scope="session")
def make_index(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Index]:
    """Builds an index from a few rows.

    `make_index(images, pairs, sources={"a": False}, near=[...], exact=[...], texts=[...], ...)`: rows of `images` are
    changes to a good fetched image (`status` other than success: not fetched), rows of `pairs` changes to a good pair
    and `image`, the place of its image. Uids are given, or the row's place.
    """

    def make(
        images: Sequence[Mapping[str, Any]],
        pairs: Sequence[Mapping[str, Any]] | None = None,
        sources: Mapping[str, bool] | None = None,
        near: Sequence[Mapping[str, Any]] = (),
        radius: Mapping[str, int] | None = None,
        exact: Sequence[Mapping[str, Any]] = (),
        benchmark_near: Sequence[Mapping[str, Any]] = (),
        texts: Sequence[Mapping[str, Any]] = (),
        without: Sequence[str] = (),
        image_only: Sequence[str] = (),
    ) -> Index:
        image_rows = []
        for place, change in enumerate(images):
            row = {"image_uid": f"{place:032x}", "source": 0, "group": place, **GOOD_IMAGE, **change}
            if row["status"] != "success":
                row = {**row, **dict.fromkeys(GOOD_IMAGE), "status": row["status"], "group": -1}
            elif not row["decoded"]:
                row = {**row, **dict.fromkeys(["width", "height", "aspect_ratio", "entropy"]), "group": -1}
            image_rows.append(row)
        pair_rows = []
        for place, change in enumerate(pairs if pairs is not None else [{"image": n} for n in range(len(images))]):
            image = image_rows[change["image"]]
            fetched = image["status"] == "success"
            values = GOOD_PAIR if fetched else dict.fromkeys(GOOD_PAIR)
            if list(sources or ["a"])[image["source"]] in image_only:
                values = {**values, **dict.fromkeys(OF_THE_TEXT)}
            row = {"uid": f"{place:032x}", "source": image["source"], "measured": fetched, **values, **change}
            pair_rows.append(row)
        filled = {"difference": 0.5, "relative_difference": 0.01}
        folder = tmp_path_factory.mktemp("index")
        on_images = [
            n for n in dict.fromkeys([*GOOD_IMAGE, *(k for row in image_rows for k in row)]) if n not in without
        ]
        on_pairs = [n for n in dict.fromkeys([*GOOD_PAIR, *(k for row in pair_rows for k in row)]) if n not in without]
        artifact = write_index(
            folder,
            _table(image_rows, IMAGES, on_images),
            _table(pair_rows, PAIRS, on_pairs),
            sources or {"a": False},
            near={"phash": _table([{**filled, **edge} for edge in near], NEAR, [])},
            radius=radius,
            exact=_table(exact, BENCHMARK_EXACT, []),
            benchmark_near={"phash": _table([{**filled, **row} for row in benchmark_near], BENCHMARK_NEAR, [])},
            texts=_table(texts, BENCHMARK_TEXTS, []),
            image_only=image_only,
        )
        return Index(artifact)

    return make


@pytest.fixture(scope="session")
def random_index(make_index) -> Callable[..., Index]:
    """An index of two sources with copies, failures and faults drawn from a seed: `random_index(seed, count=40)`."""

    def make(seed: int, count: int = 40) -> Index:
        random = np.random.default_rng(seed)
        images: list[dict[str, Any]] = []
        leaders: dict[int, int] = {}
        for place in range(count):
            row: dict[str, Any] = {
                "source": int(random.integers(2)),
                "status": str(random.choice(["success"] * 8 + ["http_404", "timeout"])),
                "decoded": bool(random.random() < 0.95),
                "width": int(random.integers(1, 4)) * 100,
                "height": 100,
                "bytes": int(random.integers(1, 4)),
            }
            if row["status"] == "success" and row["decoded"]:
                row["group"] = leaders.setdefault(int(random.integers(count)), place)
            images.append(row)
        first = sorted(set(leaders.values()))
        edges = [
            {"first": a, "second": b, "distance": int(random.integers(1, 9)), "difference": float(random.random() * 4)}
            for a in first
            for b in first
            if a < b and random.random() < 0.06
        ]
        uids = sorted(f"{n:032x}" for n in random.integers(0, 2**62, 2 * count).tolist())
        pairs = [
            {"uid": uid, "image": int(place), "words": int(random.choice([1, 5, 5, 5]))}
            for uid, place in zip(uids, random.permutation(np.repeat(np.arange(count), 2)), strict=True)
        ]
        return make_index(images, pairs, {"a": False, "b": False}, near=edges)

    return make


@pytest.fixture
def measured(fetched_source, run_stage, ray_session) -> Callable[..., dict[str, list[Artifact]]]:
    """Inputs of `select` from `{source: images}`, see `fetched_source`: signals and index are made by the real stages.

    `benchmarks` are those of the index, `worlds` the artifacts they lie in.
    """

    def make(
        sources: dict[str, Sequence[tuple[Any, ...]]],
        partitions: int = 2,
        benchmarks: dict[str, Any] | None = None,
        worlds: Sequence[Artifact] = (),
        private: Sequence[str] = (),
    ) -> dict[str, list[Artifact]]:
        inputs: dict[str, list[Artifact]] = {"pairs": [], "raw": [], "signals": []}
        for name, images in sources.items():
            pairs, raw = fetched_source(name, images, partitions)
            inputs["pairs"].append(pairs)
            inputs["raw"].append(raw)
            signals = Signals(SignalsConfig(families=("cheap",)))
            inputs["signals"].append(run_stage(signals, {"pairs": [pairs], "raw": [raw]}))
        config = IndexConfig(search_radius={"phash": 8}, benchmarks=benchmarks or {}, private_sources=list(private))
        index = run_stage(BuildIndex(config), {**inputs, "worlds": list(worlds)})
        return {"index": [index], "pairs": inputs["pairs"], "raw": inputs["raw"]}

    return make


@pytest.fixture
def world(tmp_path_factory, seal) -> Callable[..., Artifact]:
    """A world artifact from `{file name: bytes}`."""

    def make(files: dict[str, bytes], name: str = "demo") -> Artifact:
        folder = tmp_path_factory.mktemp(f"world-{name}")
        for file, data in files.items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_bytes(data)
        return seal(folder, "world", name)

    return make


@pytest.fixture
def verdicts_of() -> Callable[[Artifact], Any]:
    """Reads a `select` artifact: `.rows` by uid, and `.of(image_uid)` the (reason, detail) of its pairs."""
    import pyarrow.parquet as pq

    def read(artifact: Artifact) -> SimpleNamespace:
        rows = {row["uid"]: row for row in pq.read_table(artifact.path("verdicts.parquet")).to_pylist()}

        def of(image: str) -> list[tuple[str, str]]:
            return sorted((r["reason"], r["detail"]) for r in rows.values() if r["image_uid"] == image)

        return SimpleNamespace(rows=rows, of=of)

    return read
