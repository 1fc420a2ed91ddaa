"""Two small sources, downloaded for real from local files, and verdicts over them."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
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
from stages.shard.config import ShardConfig
from stages.shard.stage import Shard


def seal(folder: Path, seed: str) -> Artifact:
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    manifest = {
        "fingerprint": hashlib.sha256(seed.encode()).hexdigest(),
        "counts": {},
        "files": [{"name": name} for name in names],
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return Artifact(str(folder))


@dataclass
class World:
    """Inputs of the shard stage, and what is known of them."""

    pairs: tuple[Artifact, ...]
    raw: tuple[Artifact, ...]
    captions: dict[str, str]
    """By uid of pair."""
    images: dict[str, bytes]
    """By uid of pair."""
    folder: Path
    write_verdicts: Callable[..., None]

    def inputs(
        self,
        drop: Collection[str] | Mapping[str, str] = (),
        extra: Collection[str] = (),
        repeats: Mapping[str, int] | None = None,
        range_rows: int = 1,
    ) -> dict[str, list[Artifact]]:
        """The stage's inputs, with verdicts that drop the given pairs and keep some that do not exist.

        `drop` may have the reason of each; `repeats` says of some how often an epoch shows them; `range_rows` is the
        size of the ranges.
        """
        rows: list[dict[str, Any]] = [{"uid": uid, "image_uid": uid, "source": "none", "keep": True} for uid in extra]
        for pairs in self.pairs:
            for name in pairs.names("pairs-*.parquet"):
                for row in pq.read_table(pairs.path(name)).to_pylist():
                    verdict = {key: row[key] for key in ("uid", "image_uid", "source")}
                    rows.append({**verdict, "keep": row["uid"] not in drop})
        for row in rows:
            reason = "" if row["keep"] else drop[row["uid"]] if isinstance(drop, Mapping) else "rule.min_words"
            row |= {"reason": reason, "detail": "", "repeats": (repeats or {}).get(row["uid"], int(row["keep"]))}
        target = self.folder / f"verdicts{len(drop)}-{len(extra)}-{len(repeats or {})}-{range_rows}"
        target.mkdir()
        self.write_verdicts(target, rows, self.pairs, range_rows)
        verdicts = seal(target, repr(sorted(drop)) + repr(extra) + repr(sorted((repeats or {}).items())))
        return {"pairs": list(self.pairs), "raw": list(self.raw), "verdicts": [verdicts]}


def _source(
    run_stage: Callable[..., Artifact],
    world: World,
    source: str,
    count: int,
    captions: bool = True,
    missing: bool = False,
) -> None:
    """Add a source of so many images, with one or two captions each, or with an empty one; or with no image's file."""
    folder = world.folder / source
    (folder / "images").mkdir(parents=True)
    rows = []
    for n in range(count):
        form, ext = (("JPEG", "jpg"), ("PNG", "png"), ("WEBP", "webp"))[n % 3]
        pixels = np.random.default_rng([n, count]).integers(0, 255, (20 + n, 30, 3), np.uint8)
        stored = io.BytesIO()
        Image.fromarray(pixels).save(stored, format=form)
        path = f"images/{n}.{ext}"
        if not missing:
            (folder / path).write_bytes(stored.getvalue())
        for k in range(1 + n % 2 if captions else 1):
            caption = f'{source} {n}/{k}: "ein Bild", 写真 \t\u2028 and \\ more' if captions else ""
            uid = pair_uid(source, path, caption)
            world.captions[uid], world.images[uid] = caption, stored.getvalue()
            rows.append(
                {
                    "uid": uid,
                    "image_uid": image_uid(source, path),
                    "source": source,
                    "path": path,
                    "caption": caption,
                    "license": "CC0",
                    "meta": "{}",
                }
            )
    rows.sort(key=lambda row: (row["image_uid"], row["uid"]))
    middle = next(i for i in range(6, len(rows)) if rows[i]["image_uid"] != rows[i - 1]["image_uid"])
    for number, part in enumerate((rows[:middle], rows[middle:])):
        table = pa.Table.from_pylist(part, pairs_schema())
        pq.write_table(table, folder / f"pairs-{number:05d}.parquet")
    pairs = seal(folder, source)
    config = DownloadConfig(name=source, source=SourceConfig(kind="test", paths=("list",)))
    world.pairs += (pairs,)
    world.raw += (run_stage(Download(config), {"pairs": [pairs]}),)


@pytest.fixture
def world(run_stage: Callable[..., Artifact], tmp_path: Path, write_verdicts: Callable[..., None]) -> World:
    world = World((), (), {}, {}, tmp_path, write_verdicts)
    for source, count in (("alpha", 13), ("beta", 9)):
        _source(run_stage, world, source, count)
    return world


@pytest.fixture
def mixed_world(run_stage: Callable[..., Artifact], world: World) -> World:
    """The same, and a source whose images have no text."""
    _source(run_stage, world, "gamma", 8, captions=False)
    return world


@pytest.fixture
def world_without_images(
    run_stage: Callable[..., Artifact], tmp_path: Path, write_verdicts: Callable[..., None]
) -> World:
    """Two sources whose images are all missing."""
    world = World((), (), {}, {}, tmp_path, write_verdicts)
    for source, count in (("delta", 7), ("epsilon", 8)):
        _source(run_stage, world, source, count, missing=True)
    return world


@pytest.fixture
def shard(run_stage: Callable[..., Artifact]) -> Callable[..., Artifact]:
    """Runs the shard stage; `config` are keys of its configuration."""

    def run(inputs: dict[str, list[Artifact]], reverse: bool = False, **config: int) -> Artifact:
        return run_stage(Shard(ShardConfig(**{"max_samples": 7, **config})), inputs, reverse=reverse)

    return run
