"""Fixtures of the `index` tests: several sources, measured for real, and a world with benchmark images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from stages.base.artifact import Artifact
from stages.signals.config import SignalsConfig
from stages.signals.stage import Signals


@pytest.fixture
def measured(fetched_source, run_stage) -> Callable[..., dict[str, list[Artifact]]]:
    """Inputs of `index` from `{source: images}`, see `fetched_source`; the signals are measured by the real stage."""

    def make(sources: dict[str, Sequence[tuple[Any, ...]]], partitions: int = 2) -> dict[str, list[Artifact]]:
        inputs: dict[str, list[Artifact]] = {"pairs": [], "raw": [], "signals": []}
        for name, images in sources.items():
            pairs, raw = fetched_source(name, images, partitions)
            inputs["pairs"].append(pairs)
            inputs["raw"].append(raw)
            signals = Signals(SignalsConfig(families=("size", "tone", "hashes", "text")))
            inputs["signals"].append(run_stage(signals, {"pairs": [pairs], "raw": [raw]}))
        return inputs

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


@pytest.fixture(scope="session")
def clustered() -> Callable[..., np.ndarray]:
    """Hashes uint64 [count, words], of which many are a few flipped bits away from one another."""

    def make(random: np.random.Generator, count: int, words: int = 1) -> np.ndarray:
        seeds = random.integers(0, 1 << 63, (max(1, count // 6), words), dtype=np.uint64)
        hashes = seeds[random.integers(0, len(seeds), count)]
        for _ in range(6):
            flip = np.uint64(1) << random.integers(0, 64, (count, words)).astype(np.uint64)
            hashes = hashes ^ np.where(random.random((count, words)) < 0.4, flip, np.uint64(0))
        return hashes

    return make
