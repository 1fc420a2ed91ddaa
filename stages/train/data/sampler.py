"""The global batch of every step: a pure function of data set, seed and step, and the rows of it each rank takes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from stages.base.contract import UserError
from stages.train.data.dataset import Dataset
from stages.train.data.mixture import Mixture
from stages.train.data.shuffle import Shuffle

Numbered = tuple[NDArray[np.int64], NDArray[np.int64]]


class BatchSampler:
    """An endless sequence of samples, cut into global batches.

    Step ``s`` takes positions ``s * global_batch`` onwards. Without a mixture they are positions in one shuffle of the
    data set; with one, each source has its own shuffle and its own epochs. Where texts are needed, images without one
    are not there: the shuffle is one of the others, and a mixture is one of the other sources.
    """

    def __init__(
        self,
        dataset: Dataset,
        seed: int,
        global_batch: int,
        mixture: Mapping[str, float] | None = None,
        needs_texts: bool = True,
    ) -> None:
        """`mixture` gives every source of the data a weight, 0 to leave it out; null takes the data as they come.

        Raises UserError when there is no sample, or the mixture does not fit the data set.
        """
        captioned = dataset.with_texts() if needs_texts and mixture is None else None
        size = len(dataset) if captioned is None else len(captioned)
        if not size:
            raise UserError("the data set holds no sample to train on: keep some in selection")
        self.global_batch = global_batch
        self._batch = lru_cache(maxsize=8)(self._make)
        self._lock = Lock()  # loaders call from threads of their own
        self._captioned = captioned
        self._mixture = Mixture(mixture) if mixture is not None else None
        if mixture is None or self._mixture is None:
            self._shuffle = Shuffle(size, seed)
            return
        by_source = dataset.subsets(list(mixture))
        if needs_texts and dataset.image_only:
            self._mixture = Mixture({name: it for name, it in mixture.items() if name not in dataset.image_only})
        self._subsets = [by_source[source] for source in self._mixture.sources]
        self._shuffles = [
            Shuffle(len(subset), _source_seed(seed, source))
            for source, subset in zip(self._mixture.sources, self._subsets, strict=True)
        ]

    def batch(self, step: int) -> Numbered:
        """(epochs, numbers), each int64 [global_batch], read-only, of a run-wide, 0-based step.

        Ordered by stripe (see shuffle.py): equal contiguous parts, one per rank, read few blocks in common.
        """
        with self._lock:
            return self._batch(step)

    def _make(self, step: int) -> Numbered:
        positions = np.arange(step * self.global_batch, (step + 1) * self.global_batch, dtype=np.int64)
        if self._mixture is None:
            epochs, numbers = self._shuffle(positions)
            numbers = numbers if self._captioned is None else self._captioned(numbers)
            stripes = self._shuffle.stripe(positions)
        else:
            epochs, numbers, stripes = (np.empty_like(positions) for _ in range(3))
            sources, within = self._mixture(positions)
            for source, (shuffle, subset) in enumerate(zip(self._shuffles, self._subsets, strict=True)):
                rows = np.flatnonzero(sources == source)
                epochs[rows], in_subset = shuffle(within[rows])
                numbers[rows] = subset(in_subset)
                stripes[rows] = shuffle.stripe(within[rows])
        by_stripe = np.argsort(stripes, kind="stable")
        epochs, numbers = epochs[by_stripe], numbers[by_stripe]
        epochs.flags.writeable = numbers.flags.writeable = False  # cached, and returned to every caller
        return epochs, numbers


def _source_seed(seed: int, source: str) -> int:
    """A seed that depends on the source's name alone, so that adding or removing others does not reshuffle it."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{source}".encode()).digest()[:8])


def rank_rows(micro_step: int, rank: int, accumulation: int, micro_batch: int) -> slice:
    """Rows of a step's global batch that one rank takes in one micro-step.

    A rank's rows lie together, all its micro-steps in turn: neighbours in the global batch lie near each other on disk,
    so each node reads its own part of the data.
    """
    start = (rank * accumulation + micro_step) * micro_batch
    return slice(start, start + micro_batch)
