"""All passes together, without Ray: groups, classes and edges are those that looking at every pair of images finds."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stages.base.artifact import Artifact
from stages.base.pairs import image_uid, pair_uid, pairs_schema
from stages.base.tasks import InProcess
from stages.index.config import IndexConfig
from stages.index.stage import BuildIndex

RADIUS = 4
#: An image: its pixels, a part of a source. Pixels of None are of an image that was not fetched, -1 of one that did
#: not decode.
Listed = tuple[int | None, int, int]


def hash_of(pixels: int) -> int:
    """Pixels 0 to 3 and 4 to 7 have one hash each, four bits apart; others are far from all."""
    return {0: 0xF0F0, 1: 0xF0FF}.get(pixels // 4, int.from_bytes(hashlib.sha256(bytes([pixels])).digest()[:8]))


def thumbnail_of(pixels: int) -> bytes:
    """Two pictures each have the same."""
    return np.random.default_rng(pixels // 2).integers(0, 255, 192, dtype=np.uint8).tobytes()


@pytest.fixture
def inputs(tmp_path_factory, seal) -> Callable[[list[Listed]], dict[str, list[Artifact]]]:
    """Artifacts of two sources of three parts, some of them empty, with the columns that the index needs."""

    def make(images: list[Listed]) -> dict[str, list[Artifact]]:
        made: dict[str, list[Artifact]] = {"pairs": [], "raw": [], "signals": []}
        for source in range(2):
            folder = tmp_path_factory.mktemp("made")
            for role in made:
                (folder / role).mkdir()
            for part in range(3):
                mine = [(n, it[0]) for n, it in enumerate(images) if it[1:] == (source, part)]
                write(
                    folder, f"s{source}", part, sorted((image_uid(f"s{source}", str(n)), str(n), it) for n, it in mine)
                )
            for role, stage in (("pairs", "ingest"), ("raw", "download"), ("signals", "signals")):
                made[role].append(seal(folder / role, stage, f"s{source}"))
        return made

    return make


def write(folder: Path, source: str, part: int, images: list[tuple[str, str, int | None]]) -> None:
    pairs, attempts, measured, texts = [], [], [], []
    for uid, url, pixels in images:
        captions = [pair_uid(source, url, caption) for caption in ("a", "b")[: 1 + int(url) % 2]]
        for pair in sorted(captions):
            pairs.append({"uid": pair, "image_uid": uid, "source": source, "url": url, "caption": "a", "meta": "{}"})
        status = "dns" if pixels is None else "success"
        attempts.append({"image_uid": uid, "status": status, "offset": 0, "length": 1})
        if pixels is None:
            continue
        texts += [{"uid": pair, "words": 1} for pair in captions]
        row: dict[str, Any] = {"image_uid": uid, "decoded": pixels >= 0, "width": 3}
        if pixels >= 0:
            row["pixel_sha256"] = hashlib.sha256(f"{pixels}".encode()).hexdigest()
            row |= {"phash": f"{hash_of(pixels):016x}", "thumbnail": thumbnail_of(pixels)}
        measured.append(row)
    text = [(name, pa.string()) for name in ("image_uid", "pixel_sha256", "phash")]
    images_of = pa.schema([*text, ("decoded", pa.bool_()), ("width", pa.int32()), ("thumbnail", pa.binary(192))])
    tried = pa.schema(
        [("image_uid", pa.string()), ("status", pa.string()), ("offset", pa.int64()), ("length", pa.int64())]
    )
    for name, rows, schema in (
        ("pairs/pairs", pairs, pairs_schema()),
        ("raw/attempts", attempts, tried),
        ("signals/images", measured, images_of),
        ("signals/pairs", texts, pa.schema([("uid", pa.string()), ("words", pa.int32())])),
    ):
        pq.write_table(pa.Table.from_pylist(rows, schema), folder / f"{name}-{part:05d}.parquet")


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    images=st.lists(
        st.tuples(
            st.one_of(st.none(), st.integers(-1, 9), st.integers(-1, 9)), st.integers(0, 1), st.sampled_from([0, 0, 2])
        ),
        max_size=16,
    )
)
def test_any_size_of_range_says_what_looking_at_every_pair_says(
    inputs, run_stage, whole, monkeypatch, images: list[Listed]
) -> None:
    monkeypatch.setattr("stages.base.tasks.OnRay", InProcess)
    made = inputs(images)
    order = sorted(range(len(images)), key=lambda n: (*images[n][1:], image_uid(f"s{images[n][1]}", str(n))))
    rows = [images[n][0] for n in order]
    seen = {n: pixels for n, pixels in enumerate(rows) if pixels is not None and pixels >= 0}
    group = {n: min(m for m, other in seen.items() if other == pixels) for n, pixels in seen.items()}
    kind = {n: (hash_of(pixels), pixels // 2) for n, pixels in seen.items()}
    hub = {n: min(m for m in seen if kind[m] == kind[n]) for n in seen}
    edges = [
        (a, b, distance)
        for a in sorted(set(hub.values()))
        for b in sorted(set(hub.values()))
        if a < b and (distance := (kind[a][0] ^ kind[b][0]).bit_count()) <= RADIUS
    ]
    ends = {end for a, b, _ in edges for end in (a, b)}
    for size in (1, 7, 1000, 10**9):
        config = IndexConfig(search_radius={"phash": RADIUS}, range_rows=size)
        index = whole(run_stage(BuildIndex(config), made))
        table = index.images
        uids = [image_uid(f"s{images[n][1]}", str(n)) for n in order]
        assert table["image_uid"].to_pylist() == uids
        count = range(len(rows))
        assert table["group"].to_pylist() == [group.get(n, -1) for n in count]
        assert table["class_phash"].to_pylist() == [hub.get(n, -1) for n in count]
        copies = [n in group and list(group.values()).count(group[n]) > 1 for n in count]
        assert table["copies"].to_pylist() == copies
        alike = [n in hub and (list(hub.values()).count(hub[n]) > 1 or hub[n] in ends) for n in count]
        assert table["similar_phash"].to_pylist() == alike
        near = index.near("phash")
        assert list(zip(*(near[name].to_pylist() for name in near.column_names[:3]), strict=True)) == edges
        assert index.index.artifact.counts["pictures"] == len(set(group.values()))
        assert index.index.artifact.counts["near.phash"] == len(edges)
        listed = {pair["uid"]: uids[pair["image"]] for pair in index.pairs.to_pylist()}
        for n in order:
            source = f"s{images[n][1]}"
            for caption in ("a", "b")[: 1 + n % 2]:
                assert listed.pop(pair_uid(source, str(n), caption)) == image_uid(source, str(n))
        assert not listed
