"""Pairmill: shards, tokens and the training loader, as a pretraining run uses them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transforms

from stages.base.artifact import Artifact, file_sha256
from stages.shard.index import IndexRow, checksum, to_table, write_index
from stages.shard.writer import ShardWriter
from stages.tokens.encode import Encoded, id_type
from stages.train.config import OptimizationConfig
from stages.train.data.loader import Loader
from stages.train.data.loader import collate as collate
from stages.train.data.pairs import PairDataset

PACKAGE = "pairmill"
DECODER = "stages.train.data.decode"
#: Whether both ways read the same files.
SAME_DATA = True

_CAPTION = "a photograph of what there was to be seen that day"
_IDS = tuple(range(10, 24))
_VOCABULARY = 50_000


def convert(files: Sequence[Path], folder: Path, way: transforms.Way, batch: int) -> None:
    """Write the artifacts of the shard and tokens stages with these stages' own writers."""
    shards, tokens = folder / "shards", folder / "tokens"
    shards.mkdir()
    tokens.mkdir()
    tables, listed = [], []
    for shard, start in enumerate(range(0, len(files), 4 * batch)):
        path, rows = shards / f"train-{shard:05d}.tar", []
        part = files[start : start + 4 * batch]
        with ShardWriter(path) as tar:
            for number, file in enumerate(part, start):
                uid = hashlib.md5(f"{number}".encode(), usedforsecurity=False).hexdigest()
                record = {"uid": uid, "image_uid": uid, "source": "photographs", "caption": _CAPTION}
                parts = {"jpg": file.read_bytes(), "txt": _CAPTION.encode(), "json": json.dumps(record).encode()}
                at = tar.add(uid, parts)
                places = (*at["jpg"], *at["txt"], *at["json"])
                sums = (checksum(parts[name]) for name in ("jpg", "txt", "json"))
                rows.append(IndexRow(uid, uid, "photographs", shard, "jpg", *places, 1, *sums))
        tables.append(to_table(rows))
        size, sha256 = path.stat().st_size, file_sha256(path)
        listed.append({"name": path.name, "samples": len(rows), "bytes": size, "sha256": sha256})
        _captions(len(rows)).write(tokens, path.stem)
    write_index(shards / "index.arrow", tables)
    (shards / "dataset.json").write_text(json.dumps({"samples": len(files), "shards": listed}))
    stems = [str(entry["name"]).removesuffix(".tar") for entry in listed]
    (tokens / "tokens.json").write_text(json.dumps({"vocabulary": _VOCABULARY, "shards": stems}))
    for part_folder in (shards, tokens):
        _seal(part_folder)


def _captions(samples: int) -> Encoded:
    """The same caption's ids for every photograph of a shard."""
    ids = np.tile(np.array(_IDS, dtype=id_type(_VOCABULARY)), samples)
    return Encoded(ids, np.arange(samples + 1, dtype=np.int64) * len(_IDS), np.zeros(samples, dtype=np.bool_))


def _seal(folder: Path) -> None:
    files = [{"name": path.name} for path in sorted(folder.iterdir())]
    mark = hashlib.sha256(folder.name.encode()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps({"fingerprint": mark, "files": files, "counts": {}}))


def dataset(folder: Path) -> PairDataset:
    """The pairs of a folder that :func:`convert` wrote."""
    return PairDataset(Artifact(str(folder / "shards")), Artifact(str(folder / "tokens")), max_tokens=64)


def settings(batch: int, workers: int) -> OptimizationConfig:
    """A recipe with the augmentation of all contenders."""
    keys: dict[str, Any] = {"global_batch": batch, "micro_batch": batch, "loader_workers": workers, "prefetch": 4}
    keys |= {"image_mean": transforms.MEAN, "image_std": transforms.STD, "augmentation": transforms.augmentation()}
    return OptimizationConfig.model_validate(keys)


def batches(folder: Path, batch: int, workers: int, way: transforms.Way) -> Iterator[torch.Tensor]:
    """Float32 [batch, 3, 224, 224] of endless epochs, as micro-batches of a single rank."""
    loader = Loader(dataset(folder), settings(batch, workers), transforms.SIZE, 0, 1, 1)
    try:
        for made in loader.batches(0, 1_000_000):
            yield made["pixels"]
    finally:
        loader.close()
