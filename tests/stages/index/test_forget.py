"""An index that forgets equals the index of what is left, whatever stood for whatever, in whichever range."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.base.artifact import Artifact
from stages.base.forgetting import Forgotten
from stages.base.ranges import RANGES
from stages.index.forget import forget
from stages.index.schema import (
    BENCHMARK_CROPS,
    BENCHMARK_EXACT,
    BENCHMARK_NEAR,
    BENCHMARK_TEXTS,
    NEAR,
    PAIRS,
    file_of,
    images_schema,
)

RADIUS = 1


@dataclass(frozen=True)
class Image:
    """`pixels` is None for what did not decode. Equal pixels have equal signatures, but not only they."""

    uid: str
    pixels: int | None
    range: int

    @property
    def signature(self) -> int:
        assert self.pixels is not None
        return self.pixels // 2

    @property
    def hash(self) -> int:
        """Signatures 0 and 1, 2 and 3, ... differ in the thumbnail alone."""
        return self.signature // 2


def edges_of(images: list[Image], hubs: dict[int, int]) -> list[dict[str, Any]]:
    near = []
    ordered = sorted(hubs.values())
    for place, a in enumerate(ordered):
        for b in ordered[place + 1 :]:
            distance = (images[a].hash ^ images[b].hash).bit_count()
            if distance <= RADIUS:
                told = {"distance": distance, "difference": 1.0, "relative_difference": 0.5}
                near.append({"first": a, "second": b, **told})
    return near


def tables(images: list[Image], pairs: list[tuple[str, str]], ranges: int) -> dict[str, pa.Table]:
    """What `stages/index/schema.py` says of these images and (uid, image_uid), by looking at every pair of them.

    Every second pair, by its uid, repeats a benchmark's text.
    """
    group: dict[int, int] = {}
    hubs: dict[int, int] = {}
    for n, image in enumerate(images):
        if image.pixels is not None:
            group.setdefault(image.pixels, n)
            hubs.setdefault(image.signature, n)
    near = edges_of(images, hubs)
    same_pixels = Counter(image.pixels for image in images)
    alike = Counter(image.signature for image in images if image.pixels is not None)
    ends = {edge[end] for edge in near for end in ("first", "second")}
    listed = []
    for image in images:
        known = image.pixels is not None
        hub = hubs[image.signature] if known else -1
        listed.append(
            {
                "image_uid": bytes.fromhex(image.uid),
                "source": 0,
                "status": "success",
                "host": "h",
                "shard": 0,
                "offset": 512,
                "length": 9,
                "decoded": known,
                "group": group[image.pixels] if image.pixels is not None else -1,
                "copies": known and same_pixels[image.pixels] > 1,
                "class_phash": hub,
                "similar_phash": known and (alike[image.signature] > 1 or hub in ends),
                "width": 7,
            }
        )
    schema = images_schema(["phash"]).append(pa.field("width", pa.int32()))
    made: dict[str, pa.Table] = {}
    start = 0
    for number in range(ranges):
        count = sum(image.range == number for image in images)
        local = {image.uid: n for n, image in enumerate(images[start : start + count])}
        here = sorted((local[image], uid) for uid, image in pairs if image in local)
        rows = [{"uid": bytes.fromhex(uid), "image": n, "source": 0, "measured": True} for n, uid in here]
        texts = [
            {"pair": n, "benchmark": "vqa", "overlap": 0.5} for n, (_, uid) in enumerate(here) if int(uid, 16) % 2 == 0
        ]
        edges = [edge for edge in near if start <= edge["first"] < start + count]
        made[file_of("images", number)] = pa.Table.from_pylist(listed[start : start + count], schema)
        made[file_of("pairs", number)] = pa.Table.from_pylist(rows, PAIRS)
        made[file_of("near-phash", number)] = pa.Table.from_pylist(edges, NEAR)
        made[file_of("benchmark-texts", number)] = pa.Table.from_pylist(texts, BENCHMARK_TEXTS)
        start += count
    match = {"benchmark": "vqa", "file": "x.png"}
    held = [{"image": group[0], **match}] if 0 in group else []
    close = {"distance": 1, "difference": 1.0, "relative_difference": 0.5}
    nearly = [{"image": n, **match, **close} for n in sorted(hubs[s] for s in (0, 1) if s in hubs)]
    made["benchmark-exact.arrow"] = pa.Table.from_pylist(held, BENCHMARK_EXACT)
    cropped = {"distance": 6, "correlation": 0.98, "uncovered": 0.99}
    parts = [{"image": group[pixels], **match, **cropped} for pixels in (0, 1) if pixels in group]
    parts.sort(key=lambda row: row["image"])
    made["benchmark-crops.arrow"] = pa.Table.from_pylist(parts, BENCHMARK_CROPS)
    made["benchmark-phash.arrow"] = pa.Table.from_pylist(nearly, BENCHMARK_NEAR)
    return made


def written(folder: Path, made: dict[str, pa.Table], ranges: int) -> Artifact:
    listed = [
        {
            "parts": [[0, f"{n:05d}"]],
            "images": made[file_of("images", n)].num_rows,
            "pairs": made[file_of("pairs", n)].num_rows,
        }
        for n in range(ranges)
    ]
    for name, table in made.items():
        with pa.ipc.new_file(str(folder / name), table.schema) as writer:
            writer.write_table(table)
    (folder / RANGES).write_text(json.dumps(listed))
    names = [{"name": name} for name in sorted([*made, RANGES])]
    manifest = {"config": {"radius": {"phash": RADIUS}}, "counts": {}, "files": names}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return Artifact(str(folder))


def read(file: Path) -> pa.Table:
    with pa.memory_map(str(file)) as mapped:
        return pa.ipc.open_file(mapped).read_all()


@settings(max_examples=100, deadline=None)
@given(
    pixels=st.lists(st.one_of(st.none(), st.integers(0, 15)), min_size=1, max_size=12),
    lost=st.sets(st.integers(0, 11), max_size=6),
    texts=st.sets(st.integers(0, 11), max_size=3),
    cuts=st.lists(st.integers(0, 12), max_size=3),
)
def test_forgetting_equals_never_having_listed(pixels, lost, texts, cuts) -> None:
    ranges = len(cuts) + 1
    images = [Image(f"{n:032x}", p, sum(n >= cut for cut in cuts)) for n, p in enumerate(pixels)]
    pairs = [(f"{n:032x}", images[n % len(images)].uid) for n in range(2 * len(images))]
    gone = {images[n].uid for n in lost if n < len(images)}
    # Of some images one pair of two is lost, and the image stays.
    uids = frozenset(uid for n, (uid, image) in enumerate(pairs) if image in gone or n in texts)
    left = [image for image in images if image.uid not in gone]
    pairs_left = [pair for pair in pairs if pair[0] not in uids]
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as second:
        out = Path(second)
        before = tables(images, pairs, ranges)
        artifact = written(Path(folder), before, ranges)
        forgotten = Forgotten(uids, frozenset(gone))
        removal = forget(artifact, {}, forgotten, out)
        assert forget(artifact, {}, forgotten, None).rewritten == removal.rewritten
        assert bool(removal) == bool(uids)
        assert removal.samples == len(uids)
        assert sorted(file.name for file in out.iterdir()) == sorted(removal.rewritten)
        expected = tables(left, pairs_left, ranges)
        change: Counter[str] = Counter()
        for name, table in expected.items():
            found = read(out / name if name in removal.rewritten else Path(folder, name))
            assert found.schema == before[name].schema
            assert found.to_pylist() == table.to_pylist(), name
            stem = name.removesuffix(".arrow")
            stem = stem if stem.count("-") == 1 and not stem[-1].isdigit() else stem.rpartition("-")[0]
            change[stem.replace("-", ".", 1)] += table.num_rows - before[name].num_rows
        groups = [len({image.pixels for image in some if image.pixels is not None}) for some in (images, left)]
        change["pictures"] = groups[1] - groups[0]
        assert {name: removal.counts[name] for name in change} == dict(change)
        if removal:
            listed = json.loads((out / RANGES).read_text())
            for number, entry in enumerate(listed):
                assert entry["images"] == expected[file_of("images", number)].num_rows
                assert entry["pairs"] == expected[file_of("pairs", number)].num_rows


def test_offsets_are_those_of_the_rewritten_shards(tmp_path: Path, seal) -> None:
    images = [Image(f"{n:032x}", n, n // 2) for n in range(4)]
    pairs = [(image.uid, image.uid) for image in images]
    for name in ("index", "out", "raw"):
        (tmp_path / name).mkdir()
    artifact = written(tmp_path / "index", tables(images, pairs, 2), 2)
    for part in range(2):
        uids = [image.uid for image in images if image.range == part and image.uid != images[2].uid]
        tried = {"image_uid": uids, "offset": [1000 * (part + 1) + n for n in range(len(uids))]}
        pq.write_table(pa.table(tried), tmp_path / "raw" / f"attempts-{part:05d}.parquet")
    raw = seal(tmp_path / "raw", "download", "x")
    gone = frozenset([images[2].uid])
    forget(artifact, {"raw": [raw]}, Forgotten(gone, gone), tmp_path / "out")
    # The first range lost nothing: its shard is as it was.
    assert read(tmp_path / "out" / file_of("images", 0))["offset"].to_pylist() == [512, 512]
    assert read(tmp_path / "out" / file_of("images", 1))["offset"].to_pylist() == [2000]


@pytest.mark.parametrize("held", [True, False])
def test_an_index_of_the_layout_before_ranges_loses_its_tables(tmp_path: Path, held: bool) -> None:
    for name, column in (("pairs", "uid"), ("images", "image_uid")):
        table = pa.table({column: ["a" * 32, "b" * 32]})
        with pa.ipc.new_file(str(tmp_path / f"{name}.arrow"), table.schema) as writer:
            writer.write_table(table)
    names = [{"name": name} for name in ("images.arrow", "pairs.arrow", "sources.json")]
    (tmp_path / "manifest.json").write_text(json.dumps({"config": {}, "counts": {}, "files": names}))
    gone = frozenset(["a" * 32 if held else "c" * 32])
    removal = forget(Artifact(str(tmp_path)), {}, Forgotten(gone, gone), None)
    assert removal.deleted == (["images.arrow", "pairs.arrow"] if held else [])
    assert removal.samples == held
