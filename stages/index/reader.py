"""Reading an `index` artifact: its tables, memory-mapped."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stages.base.artifact import Artifact
from stages.index.config import Hash
from stages.index.schema import BENCHMARK_EXACT, BENCHMARK_NEAR, BENCHMARK_TEXTS, NEAR


class Index:
    """The tables that `stages/index/schema.py` describes; a column costs memory when it is looked at."""

    def __init__(self, artifact: Artifact) -> None:
        self.artifact = artifact

    @cached_property
    def images(self) -> pa.Table:
        """Every image listed."""
        return self._table("images.arrow")

    @cached_property
    def pairs(self) -> pa.Table:
        """Every pair listed."""
        return self._table("pairs.arrow")

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

    def near(self, hash: Hash) -> pa.Table:
        """Pairs of near pictures by one hash. Raises KeyError when the index was not made with it."""
        self.radius[hash]
        return self._table(f"near-{hash}.arrow", NEAR)

    def classes(self, hash: Hash) -> NDArray[np.int32]:
        """Per row of :attr:`images` the first row with the same hash and thumbnail, int32 [images].

        Only the first of a class carries rows of :meth:`near` to other classes: map each image to its class, and each
        row of :meth:`near` holds for all members of its two classes. A row that leads no group has its leader's class;
        an image that was not decoded is its own.
        """
        near = self.near(hash)
        same = (near["distance"].to_numpy() == 0) & (near["difference"].to_numpy() == 0)
        leaders = np.arange(self.images.num_rows, dtype=np.int32)
        leaders[near["second"].to_numpy()[same]] = near["first"].to_numpy()[same]
        group = self.images["group"].to_numpy()
        decoded = group >= 0
        leaders[decoded] = leaders[group[decoded]]
        return leaders

    @cached_property
    def benchmark_exact(self) -> pa.Table:
        """Pictures with the pixels of a benchmark's image."""
        return self._table("benchmark-exact.arrow", BENCHMARK_EXACT)

    def benchmark_near(self, hash: Hash) -> pa.Table:
        """Pictures near a benchmark's image. Raises KeyError when the index was not made with that hash."""
        self.radius[hash]
        return self._table(f"benchmark-{hash}.arrow", BENCHMARK_NEAR)

    @cached_property
    def benchmark_texts(self) -> pa.Table:
        """Pairs whose caption shares n-grams with a benchmark's texts."""
        return self._table("benchmark-texts.arrow", BENCHMARK_TEXTS)

    def _table(self, name: str, schema: pa.Schema | None = None) -> pa.Table:
        with pa.memory_map(str(self.artifact.path(name))) as mapped:
            table = pa.ipc.open_file(mapped).read_all()
        return table if schema is None else table.cast(schema)
