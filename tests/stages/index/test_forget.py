"""An index that forgets equals the index of what is left, whatever stood for whatever."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.base.artifact import Artifact
from stages.base.forgetting import Forgotten
from stages.index.forget import forget
from stages.index.schema import BENCHMARK_EXACT, BENCHMARK_NEAR, BENCHMARK_TEXTS, IMAGES, NEAR, PAIRS

RADIUS = 1


@dataclass(frozen=True)
class Image:
    """`pixels` is None for what did not decode. Equal pixels have equal signatures, but not only they."""

    uid: str
    pixels: int | None

    @property
    def signature(self) -> int:
        assert self.pixels is not None
        return self.pixels // 2

    @property
    def hash(self) -> int:
        """Signatures 0 and 1, 2 and 3, ... differ in the thumbnail alone."""
        return self.signature // 2


def tables(images: list[Image], pairs: list[tuple[str, str]]) -> dict[str, pa.Table]:
    """What `stages/index/schema.py` says of these images and (uid, image_uid), by looking at every pair of them."""
    row = {image.uid: n for n, image in enumerate(images)}
    first: dict[int, int] = {}
    group = [first.setdefault(i.pixels, n) if i.pixels is not None else -1 for n, i in enumerate(images)]
    leaders = [n for n, g in enumerate(group) if g == n]
    hubs: dict[int, int] = {}
    for n in leaders:
        hubs.setdefault(images[n].signature, n)
    near = []
    for n in leaders:
        hub = hubs[images[n].signature]
        if n != hub:
            near.append({"first": hub, "second": n, "distance": 0, "difference": 0.0, "relative_difference": 0.0})
    ordered = sorted(hubs.values())
    for place, a in enumerate(ordered):
        for b in ordered[place + 1 :]:
            distance = (images[a].hash ^ images[b].hash).bit_count()
            if distance <= RADIUS:
                told = {"distance": distance, "difference": 1.0, "relative_difference": 0.5}
                near.append({"first": a, "second": b, **told})
    near.sort(key=lambda edge: (edge["first"], edge["second"]))
    held = [n for n in leaders if images[n].pixels == 0]
    alike = [hubs[s] for s in (0, 1) if s in hubs]
    match = {"benchmark": "vqa", "file": "x.png"}
    count = len(images)
    listed = {
        "image_uid": [i.uid for i in images],
        "source": [0] * count,
        "status": ["success"] * count,
        "host": ["h"] * count,
        "shard": [0] * count,
        "offset": [512] * count,
        "length": [9] * count,
        "decoded": [i.pixels is not None for i in images],
        "group": group,
    }
    return {
        "images.arrow": pa.table(listed, IMAGES),
        "pairs.arrow": pa.Table.from_pylist(
            [{"uid": uid, "image": row[image], "source": 0, "measured": True} for uid, image in pairs], PAIRS
        ),
        "near-phash.arrow": pa.Table.from_pylist(near, NEAR),
        "benchmark-exact.arrow": pa.Table.from_pylist([{"image": n, **match} for n in held], BENCHMARK_EXACT),
        "benchmark-phash.arrow": pa.Table.from_pylist(
            [
                {"image": n, **match, "distance": 1, "difference": 1.0, "relative_difference": 0.5}
                for n in sorted(alike)
            ],
            BENCHMARK_NEAR,
        ),
        "benchmark-texts.arrow": pa.Table.from_pylist(
            [{"pair": n, "benchmark": "vqa", "overlap": 0.5} for n in range(0, len(pairs), 2)], BENCHMARK_TEXTS
        ),
    }


def rows(table: pa.Table) -> list[dict[str, Any]]:
    return list(table.to_pylist())


@settings(max_examples=150, deadline=None)
@given(
    pixels=st.lists(st.one_of(st.none(), st.integers(0, 15)), min_size=1, max_size=12),
    lost=st.sets(st.integers(0, 11)),
)
def test_forgetting_equals_never_having_listed(pixels: list[int | None], lost: set[int]) -> None:
    images = [Image(f"{n:032x}", p) for n, p in enumerate(pixels)]
    pairs = [(f"{n:032x}", images[n % len(images)].uid) for n in range(2 * len(images))]
    gone = {images[n].uid for n in lost if n < len(images)}
    left = [image for image in images if image.uid not in gone]
    pairs_left = [pair for pair in pairs if pair[1] not in gone]
    with tempfile.TemporaryDirectory() as folder:
        held, out = Path(folder), Path(folder, "out")
        out.mkdir()
        before = tables(images, pairs)
        for name, table in before.items():
            with pa.ipc.new_file(str(held / name), table.schema) as writer:
                writer.write_table(table)
        manifest = {"config": {}, "counts": {}, "files": [{"name": name} for name in before]}
        (held / "manifest.json").write_text(json.dumps(manifest))
        uids = frozenset(uid for uid, image in pairs if image in gone)
        removal = forget(Artifact(folder), {}, Forgotten(uids, frozenset(gone)), out)
        assert bool(removal) == bool(gone)
        if not gone:
            return
        expected = tables(left, pairs_left)
        # The benchmark's texts are of pairs, which are renumbered; which of them match does not follow from the rest.
        texts = [pairs[n][0] for n in range(0, len(pairs), 2)]
        for name, table in expected.items():
            with pa.memory_map(str(out / name)) as mapped:
                found = pa.ipc.open_file(mapped).read_all()
            assert found.schema == before[name].schema
            if name == "benchmark-texts.arrow":
                named = [pairs_left[row["pair"]][0] for row in rows(found)]
                assert named == [uid for uid in texts if uid in {u for u, _ in pairs_left}]
            else:
                assert rows(found) == rows(table), name
        change = {
            name.removesuffix(".arrow").replace("-", ".", 1): expected[name].num_rows - before[name].num_rows
            for name in ("images.arrow", "pairs.arrow", "near-phash.arrow", "benchmark-exact.arrow")
        }
        assert {name: removal.counts[name] for name in change} == change
