"""Random access to the ids of any caption, memory-mapped."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from stages.artifact import Artifact

_OPEN_SHARDS = 256


class TokenReader:
    """Reads a `tokens` artifact; cheap to open, picklable."""

    def __init__(self, artifact: Artifact) -> None:
        self.artifact = artifact
        content = artifact.read_json("tokens.json")
        self.vocabulary: int = content["vocabulary"]
        """Number of ids of the tokenizer that made them."""
        self.shards: list[str] = content["shards"]
        """Names of the shards without `.tar`, in order."""
        self._opened = lru_cache(maxsize=_OPEN_SHARDS)(self._open)

    def __reduce__(self) -> tuple[type[TokenReader], tuple[Artifact]]:
        return TokenReader, (self.artifact,)

    def tokens(self, shard: int, position: int) -> np.ndarray:
        """Ids [length], uint16 or uint32, no bos, no eos, of the sample at a position of a shard.

        Raises IndexError beyond the shard's end.
        """
        ids, offsets = self._opened(shard)
        if not 0 <= position < len(offsets) - 1:
            raise IndexError(f"{self.shards[shard]} has {len(offsets) - 1} samples, none at position {position}")
        return ids[offsets[position] : offsets[position + 1]]

    def _open(self, shard: int) -> tuple[np.ndarray, np.ndarray]:
        stem = self.shards[shard]
        ids = np.load(self.artifact.path(f"{stem}.ids.npy"), mmap_mode="r")
        return ids, np.load(self.artifact.path(f"{stem}.offsets.npy"), mmap_mode="r")
