"""Pretraining's samples: image-text pairs from the training shards, captions as the token ids made of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.base.artifact import Artifact
from stages.shard.reader import DamagedShard, ShardReader
from stages.tokenizer.special import SpecialIds
from stages.tokens.reader import TokenReader
from stages.train.data.dataset import DamagedSample, Flips, TextTotals, TokenizedText, TrainingSample, target_ids
from stages.train.data.flip_text import mentions_side
from stages.train.data.repeats import Repeats, shown_once
from stages.train.data.source_subset import SourceSubset, mixture_subsets, subset_without, subsets_by_source

_NO_PROMPT = np.empty(0, dtype=np.int64)


class PairDataset:
    """Sample number -> pair, in the order of the shards' index; after all of them the repeats of the same epoch.

    Cheap to construct and to pickle: index, repeats and ids are opened at first use, and a copy in a worker process
    maps the same files.
    """

    def __init__(
        self,
        shards: Artifact,
        tokens: Artifact,
        max_tokens: int,
        special: SpecialIds | None = None,
        flips: bool = False,
    ) -> None:
        """`flips`: whether images will be flipped, so that captions must be searched for left and right."""
        self._shards = shards
        self._reader = ShardReader(shards)
        self._tokens = TokenReader(tokens)
        self._max_tokens = max_tokens
        self._eos = (special or SpecialIds()).eos
        self._flips = flips

    def __getstate__(self) -> dict[str, Any]:
        # The counts of repeats go along (they are small), so that no worker reads the whole column again. The samples
        # with texts refer to whole columns; only the sampler, which is in the rank's own process, asks for them.
        own = {name: value for name, value in self.__dict__.items() if name != "_captioned"}
        return {**own, "_repeats": self._repeats, "_listed": self._listed}

    def __len__(self) -> int:
        if self._repeats is not None:
            return len(self._repeats)
        return int(self._ends[-1]) if len(self._ends) else 0

    def sample(self, number: int, epoch: int) -> TrainingSample:
        """One pair. Raises DamagedSample naming shard and uid for bytes that are not as written."""
        number, repeat = self._pair(number)
        row = self._reader.index[number]
        try:
            image = self._reader.image(row)
            sided = self._flips and mentions_side(self._reader.caption(number))
        except DamagedShard as damage:
            raise DamagedSample(str(damage), row.uid) from damage
        texts: tuple[TokenizedText, ...] = ()
        if row.text_length >= 0:
            texts = (TokenizedText(_NO_PROMPT, target_ids(self._caption(number), self._max_tokens, self._eos)),)
        return TrainingSample(
            uid=row.uid,
            image_id=int(row.image_uid[:15], 16),
            image=image,
            texts=lambda crop: texts,
            flippable=not sided,
            repeat=repeat,
        )

    def lengths(self, number: int, epoch: int) -> tuple[int, int]:
        """0 and the caption's tokens with its eos."""
        return 0, min(self._max_tokens, len(self._caption(self._pair(number)[0])) + 1)

    def longest(self, numbers: NDArray[np.int64], epochs: NDArray[np.int64]) -> tuple[int, int]:
        """0 and the tokens of the longest caption with its eos."""
        return 0, int(self._target_lengths(numbers).max())

    def totals(self, numbers: NDArray[np.int64], epochs: NDArray[np.int64], flips: Flips) -> TextTotals:
        """One text each, and the tokens of all with their eos. Captions do not depend on flips."""
        return TextTotals(len(numbers), int(self._target_lengths(numbers).sum()))

    def subsets(self, sources: Sequence[str]) -> Mapping[str, SourceSubset]:
        """The samples of each source. Raises UserError unless `sources` are exactly those of the data."""
        index = self._reader.index
        subsets = subsets_by_source(index.table["source"], index.repeats, self._repeats)
        return mixture_subsets(subsets, sources)

    def with_texts(self) -> SourceSubset | None:
        """The samples of all sources but the image-only ones; None where there are none of these."""
        return self._captioned

    @property
    def image_only(self) -> Collection[str]:
        """Names of the image-only sources."""
        return self._listed[1]

    def uid(self, number: int) -> str:
        """The pair's uid."""
        return self._reader.index[self._pair(number)[0]].uid

    def source(self, number: int) -> str:
        """Name of the pair's source."""
        return self._reader.index[self._pair(number)[0]].source

    @cached_property
    def _listed(self) -> tuple[NDArray[np.int64], frozenset[str]]:
        """From `dataset.json`: samples up to the end of each shard, and names of the image-only sources."""
        dataset = self._shards.read_json("dataset.json")
        ends = np.cumsum([shard["samples"] for shard in dataset["shards"]], dtype=np.int64)
        return ends, frozenset(dataset.get("image_only", ()))

    @property
    def _ends(self) -> NDArray[np.int64]:
        return self._listed[0]

    @cached_property
    def _captioned(self) -> SourceSubset | None:
        if not self.image_only:
            return None
        index = self._reader.index
        return subset_without(self.image_only, index.table["source"], index.repeats, self._repeats)

    @cached_property
    def _repeats(self) -> Repeats | None:
        times = self._reader.index.repeats
        return None if times is None or shown_once(times) else Repeats(times)

    def _pair(self, number: int) -> tuple[int, int]:
        """(number of the pair, number of earlier times the epoch has shown it) of a sample."""
        repeats = self._attached_repeats()
        return (number, 0) if repeats is None else repeats(number)

    def _attached_repeats(self) -> Repeats | None:
        if self._repeats is not None and not self._repeats.attached:
            self._repeats.attach(self._reader.index.repeats)
        return self._repeats

    def _target_lengths(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Tokens of many samples' captions with their eos, int64 [n]."""
        repeats = self._attached_repeats()
        pairs = numbers if repeats is None else repeats.pairs(numbers)
        shards = np.searchsorted(self._ends, pairs, side="right")
        starts = np.concatenate([[0], self._ends])[shards]
        return np.minimum(self._max_tokens, self._tokens.lengths(shards, pairs - starts) + 1)

    def _caption(self, number: int) -> np.ndarray:
        shard = int(np.searchsorted(self._ends, number, side="right"))
        return self._tokens.tokens(shard, number - (int(self._ends[shard - 1]) if shard else 0))
