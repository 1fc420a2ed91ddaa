"""Random access to the ids of any caption, memory-mapped. On the loader's hot path: no torch, files opened lazily."""

from __future__ import annotations

from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.base.artifact import Artifact

#: Shards mapped at a time; a mapping costs address space and no file handle.
_OPEN_SHARDS = 1024


class TokenReader:
    """Reads a `tokens` artifact. Cheap to construct and to pickle: files are opened on first use."""

    def __init__(self, artifact: Artifact) -> None:
        self.artifact = artifact
        self._ids = lru_cache(maxsize=_OPEN_SHARDS)(lambda shard: self._open(shard, "ids"))
        self._offsets = lru_cache(maxsize=_OPEN_SHARDS)(lambda shard: self._open(shard, "offsets"))

    def __reduce__(self) -> tuple[type[TokenReader], tuple[Artifact]]:
        return TokenReader, (self.artifact,)

    @cached_property
    def content(self) -> dict[str, Any]:
        """The parsed `tokens.json`."""
        content: dict[str, Any] = self.artifact.read_json("tokens.json")
        return content

    @property
    def vocabulary(self) -> int:
        """Vocabulary size of the tokenizer that made them."""
        return int(self.content["vocabulary"])

    @cached_property
    def shards(self) -> list[str]:
        """Names of the shards without `.tar`, in order."""
        return list(self.content["shards"])

    def tokens(self, shard: int, position: int) -> NDArray[np.unsignedinteger]:
        """Ids [length], uint16 or uint32, without bos and eos, of the sample at a position in a shard.

        Raises IndexError beyond the shard's end.
        """
        offsets = self._offsets(shard)
        if not 0 <= position < len(offsets) - 1:
            raise IndexError(f"{self.shards[shard]} has {len(offsets) - 1} samples, none at position {position}")
        return self._ids(shard)[offsets[position] : offsets[position + 1]]

    def lengths(self, shards: NDArray[np.integer], positions: NDArray[np.integer]) -> NDArray[np.int64]:
        """Number of ids of many samples at once, int64 [n]; `shards` and `positions` are int [n].

        Raises IndexError for a position beyond its shard's end.
        """
        shards, positions = np.asarray(shards), np.asarray(positions)
        out = np.empty(len(shards), dtype=np.int64)
        # Sorted by shard, each shard's samples are contiguous.
        order = np.argsort(shards, kind="stable")
        bounds = np.flatnonzero(np.diff(shards[order], prepend=-1, append=-1))
        for start, stop in pairwise(bounds.tolist()):
            rows = order[start:stop]
            shard, within = int(shards[rows[0]]), positions[rows]
            offsets = self._offsets(shard)
            if within.min() < 0 or within.max() >= len(offsets) - 1:
                wrong = within[(within < 0) | (within >= len(offsets) - 1)][0]
                raise IndexError(f"{self.shards[shard]} has {len(offsets) - 1} samples, none at position {wrong}")
            out[rows] = offsets[within + 1] - offsets[within]
        return out

    def _open(self, shard: int, part: str) -> NDArray[Any]:
        mapped = np.load(self.artifact.path(f"{self.shards[shard]}.{part}.npy"), mmap_mode="r")
        # A plain array view: slicing a memmap costs several times as much.
        return mapped.view(np.ndarray)
