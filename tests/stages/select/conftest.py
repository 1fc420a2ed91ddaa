"""Fixtures of the `select` tests: several sources, measured for real, and a world with benchmark images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from stages.artifact import Artifact
from stages.signals.config import SignalsConfig
from stages.signals.stage import Signals


@pytest.fixture
def measured(fetched_source, run_stage) -> Callable[..., dict[str, list[Artifact]]]:
    """Inputs of `select` from `{source: images}`, see `fetched_source`; the signals are measured by the real stage."""

    def make(sources: dict[str, Sequence[tuple[Any, ...]]], partitions: int = 2) -> dict[str, list[Artifact]]:
        inputs: dict[str, list[Artifact]] = {"pairs": [], "raw": [], "signals": []}
        for name, images in sources.items():
            pairs, raw = fetched_source(name, images, partitions)
            inputs["pairs"].append(pairs)
            inputs["raw"].append(raw)
            inputs["signals"].append(run_stage(Signals(SignalsConfig()), {"pairs": [pairs], "raw": [raw]}))
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
