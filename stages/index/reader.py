"""Reading an `index` artifact: its tables by range, memory-mapped."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stages.base import ranges
from stages.base.artifact import Artifact
from stages.base.ranges import Range as Range  # what `Index.ranges` lists
from stages.index.config import Hash
from stages.index.schema import BENCHMARK_CROPS, BENCHMARK_EXACT, BENCHMARK_NEAR, BENCHMARK_TEXTS, NEAR, file_of


class Index:
    """The tables that `stages/index/schema.py` describes; a column costs memory when it is looked at.

    Picklable: a task receives the artifact's address and nothing that was read.
    """

    def __init__(self, artifact: Artifact) -> None:
        self.artifact = artifact

    def __reduce__(self) -> tuple[Any, ...]:
        return Index, (Artifact(self.artifact.url),)

    @cached_property
    def ranges(self) -> list[Range]:
        """What the tables are divided into, in order of their rows."""
        return ranges.from_json(self.artifact.read_json(ranges.RANGES))

    def images(self, range: int) -> pa.Table:
        """The images of one range."""
        return self._table(file_of("images", range))

    def pairs(self, range: int) -> pa.Table:
        """The pairs of one range; `image` is a row of :meth:`images`."""
        return self._table(file_of("pairs", range))

    def range_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Number of the range in which each global row of an image lies, int64; -1 for row -1."""
        return np.searchsorted(self._first_images, rows, side="right") - 1

    @cached_property
    def _first_images(self) -> NDArray[np.int64]:
        return np.array([it.first_image for it in self.ranges], dtype=np.int64)

    @cached_property
    def sources(self) -> list[str]:
        """Names of the sources by number, in the order of the stage's inputs."""
        return [entry["name"] for entry in self.artifact.read_json("sources.json")]

    @cached_property
    def private(self) -> list[bool]:
        """Whether each of :attr:`sources` is private."""
        return [entry["private"] for entry in self.artifact.read_json("sources.json")]

    @cached_property
    def image_only(self) -> list[bool]:
        """Whether each of :attr:`sources` is image-only: none of its pairs has a caption."""
        return [entry.get("image_only", False) for entry in self.artifact.read_json("sources.json")]

    @cached_property
    def radius(self) -> dict[Hash, int]:
        """Perceptual hash -> bits up to which it was searched."""
        return dict(self.artifact.manifest["config"]["radius"])

    def near(self, hash: Hash, range: int) -> pa.Table:
        """Pairs of near classes by one hash whose first lies in the range.

        Raises KeyError when the index was not made with that hash.
        """
        self.radius[hash]
        return self._table(file_of(f"near-{hash}", range), NEAR)

    @cached_property
    def benchmark_exact(self) -> pa.Table:
        """Pictures with the pixels of a benchmark's image."""
        return self._table("benchmark-exact.arrow", BENCHMARK_EXACT)

    def benchmark_near(self, hash: Hash) -> pa.Table:
        """Classes near a benchmark's image. Raises KeyError when the index was not made with that hash."""
        self.radius[hash]
        return self._table(f"benchmark-{hash}.arrow", BENCHMARK_NEAR)

    @cached_property
    def has_crops(self) -> bool:
        """Whether crops of the benchmarks' images were looked for."""
        return "benchmark-crops.arrow" in self.artifact.names()

    @cached_property
    def benchmark_crops(self) -> pa.Table:
        """Pictures of which a benchmark has a crop, or which are one, if they were looked for (:attr:`has_crops`)."""
        return self._table("benchmark-crops.arrow", BENCHMARK_CROPS)

    def benchmark_texts(self, range: int) -> pa.Table:
        """Pairs of one range whose caption shares n-grams with a benchmark's texts."""
        return self._table(file_of("benchmark-texts", range), BENCHMARK_TEXTS)

    def _table(self, name: str, schema: pa.Schema | None = None) -> pa.Table:
        with pa.memory_map(str(self.artifact.path(name))) as mapped:
            table = pa.ipc.open_file(mapped).read_all()
        return table if schema is None else table.cast(schema)
