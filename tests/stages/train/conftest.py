"""Data sets for tests of orders and batches: one in memory, and real shards with their tokens."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from xxhash import xxh3_64_intdigest

from stages.base.artifact import Artifact, file_sha256
from stages.shard.index import to_table, write_index
from stages.shard.scan import scan_tar
from stages.shard.writer import ShardWriter
from stages.train.config import AugmentationConfig, OptimizationConfig
from stages.train.data.crop import Crop
from stages.train.data.dataset import Flips, Subset, TextTotals, TokenizedText, TrainingSample, target_ids


def png(number: int, size: int = 8) -> bytes:
    """Noise, as a file."""
    file = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (size, size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


class Numbers:
    """Sample `i` is an 8 x 8 noise image whose only target token is `i + 3`; text lengths differ."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def sample(self, number: int, epoch: int) -> TrainingSample:
        prompt = np.full(number % 3, 5, dtype=np.int64)
        target = target_ids(np.full(1 + number % 2, number + 3), 8)

        def texts(crop: Crop) -> tuple[TokenizedText, ...]:
            return (TokenizedText(prompt, target),)

        return TrainingSample(str(number), number, png(number), texts)

    def lengths(self, number: int, epoch: int) -> tuple[int, int]:
        return number % 3, 2 + number % 2

    def longest(self, numbers: np.ndarray, epochs: np.ndarray) -> tuple[int, int]:
        lengths = [self.lengths(int(number), int(epoch)) for number, epoch in zip(numbers, epochs, strict=True)]
        return max(prompt for prompt, _ in lengths), max(target for _, target in lengths)

    def totals(self, numbers: np.ndarray, epochs: np.ndarray, flips: Flips) -> TextTotals:
        return TextTotals(len(numbers), int((2 + numbers % 2).sum()))

    def subsets(self, sources: Sequence[str]) -> Mapping[str, Subset]:
        raise AssertionError("no test here mixes sources")

    def with_texts(self) -> None:
        return None

    @property
    def image_only(self) -> Collection[str]:
        return ()

    def source(self, number: int) -> str:
        return ""


@pytest.fixture
def numbers() -> type[Numbers]:
    return Numbers


@pytest.fixture
def settings() -> OptimizationConfig:
    return OptimizationConfig(
        global_batch=8,
        micro_batch=2,
        seed=3,
        augmentation=AugmentationConfig(crop_scale=(0.3, 1.0), horizontal_flip=0.5),
    )


def _sealed(folder: Path) -> Artifact:
    files = [{"name": path.name} for path in sorted(folder.iterdir())]
    mark = hashlib.sha256(str(folder).encode()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps({"fingerprint": mark, "files": files, "counts": {}}))
    return Artifact(str(folder))


@pytest.fixture
def pair_files(tmp_path: Path) -> Callable[..., tuple[Artifact, Artifact]]:
    """Makes a `shard` and a `tokens` artifact of so many samples per shard.

    Sample `i` has uid `i` in hex, noise for an image and `1 + i % 3` tokens `i + 3`. `sources` names each sample's;
    those of `image_only` have no text.
    """

    def make(per_shard: Sequence[int], sources: Sequence[str] = (), **more: Any) -> tuple[Artifact, Artifact]:
        root = tmp_path / f"data-{len(list(tmp_path.iterdir()))}"
        shards, tokens = root / "shards", root / "tokens"
        shards.mkdir(parents=True)
        tokens.mkdir()
        number, rows, listed = 0, [], []
        image_only = more.get("image_only", ())
        for shard, samples in enumerate(per_shard):
            path = shards / f"train-{shard:05d}.tar"
            ids = []
            with ShardWriter(path) as tar:
                for _ in range(samples):
                    uid = f"{number:032x}"
                    meta = {"uid": uid, "image_uid": uid, "source": sources[number] if sources else "s"}
                    parts = {"png": png(number, more.get("size", 8)), "json": json.dumps(meta).encode()}
                    if meta["source"] in image_only:
                        ids.append([])
                    else:
                        parts["txt"] = b"a"
                        ids.append([number + 3] * (1 + number % 3))
                    tar.add(uid, parts)
                    number += 1
            data = path.read_bytes()
            for row in scan_tar(path, shard):
                image = data[row.image_offset :][: row.image_length]
                rows.append(row._replace(image_xxh3=xxh3_64_intdigest(image)))
            np.save(tokens / f"{path.stem}.ids.npy", np.array([i for one in ids for i in one], dtype=np.uint16))
            np.save(tokens / f"{path.stem}.offsets.npy", np.cumsum([0, *map(len, ids)], dtype=np.int64))
            entry = {"name": path.name, "samples": samples, "bytes": path.stat().st_size, "sha256": file_sha256(path)}
            listed.append(entry)
        write_index(shards / "index.arrow", [to_table(rows)])
        dataset: dict[str, Any] = {"samples": number, "shards": listed}
        if image_only:
            dataset["image_only"] = {name: list(sources).count(name) for name in image_only}
        (shards / "dataset.json").write_text(json.dumps(dataset))
        stems = [entry["name"].removesuffix(".tar") for entry in listed]
        (tokens / "tokens.json").write_text(json.dumps({"vocabulary": 99, "shards": stems}))
        return _sealed(shards), _sealed(tokens)

    return make
