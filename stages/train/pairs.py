"""Pretraining's samples: image-text pairs from the training shards, captions as the token ids made of them."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import Image

from stages.artifact import Artifact
from stages.shard.reader import ShardReader
from stages.tokens.reader import TokenReader
from stages.train.dataset import ImageCache, Sample, Text, target_ids
from stages.train.repeats import Repeats, shown_once


class PairDataset:
    """Sample number -> pair, in the order of the shards' index; behind them those shown again in the same epoch."""

    def __init__(self, shards: Artifact, tokens: Artifact, max_tokens: int, cache_mb: int) -> None:
        self._reader = ShardReader(shards)
        self._tokens = TokenReader(tokens)
        listed = shards.read_json("dataset.json")["shards"]
        self._ends = np.cumsum([shard["samples"] for shard in listed], dtype=np.int64)
        self._max_tokens = max_tokens
        self._cache = ImageCache(cache_mb)
        times = self._reader.index.repeats
        self._repeats = None if times is None or shown_once(times) else Repeats(times)

    def __len__(self) -> int:
        if self._repeats is not None:
            return len(self._repeats)
        return int(self._ends[-1]) if len(self._ends) else 0

    def sample(self, number: int, epoch: int) -> Sample:
        """One pair. Raises RuntimeError naming uid and shard when its image cannot be decoded."""
        number, turn = self._repeats(number) if self._repeats is not None else (number, 0)
        row = self._reader.index[number]

        def decode() -> Image.Image:
            try:
                with Image.open(BytesIO(self._reader.sample(number).image_bytes)) as image:
                    return image.convert("RGB")
            except OSError as error:
                name = self._reader.shards[row.shard]
                raise RuntimeError(f"uid {row.uid}: its image in {name} does not decode") from error

        return Sample(
            uid=row.uid,
            image_id=int(row.image_uid[:15], 16),
            image=self._cache.get(number, decode),
            texts=(Text(np.empty(0, dtype=np.int64), target_ids(self._caption(number), self._max_tokens)),),
            turn=turn,
        )

    def lengths(self, number: int, epoch: int) -> tuple[int, int]:
        """0 and the caption's tokens with its eos."""
        number = self._repeats(number)[0] if self._repeats is not None else number
        return 0, min(self._max_tokens, len(self._caption(number)) + 1)

    def _caption(self, number: int) -> np.ndarray:
        shard = int(np.searchsorted(self._ends, number, side="right"))
        return self._tokens.tokens(shard, number - (int(self._ends[shard - 1]) if shard else 0))
