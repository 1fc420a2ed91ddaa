"""The global batch of every step: a pure function of data set, seed and step, whoever asks and in whatever order."""

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
from stages.train.data.shuffle import Order

Numbered = tuple[NDArray[np.int64], NDArray[np.int64]]


class Stream:
    """An endless row of samples, cut into global batches.

    Step ``s`` takes positions ``s * global_batch`` onwards. Without a mixture they are places of one order over the
    data set; with one, each source has its own order and its own epochs.
    """

    def __init__(
        self, dataset: Dataset, seed: int, global_batch: int, mixture: Mapping[str, float] | None = None
    ) -> None:
        """`mixture` gives every source of the data a weight, 0 to leave it out; null takes the data as they come.

        Raises UserError when there is nothing to take, or the mixture is not one of these data.
        """
        if not len(dataset):
            raise UserError("the data set holds no sample to train on: keep some in selection")
        self.global_batch = global_batch
        self._batch = lru_cache(maxsize=8)(self._made)
        self._one = Lock()  # a loader may ask from a thread of its own
        self._mixture = Mixture(mixture) if mixture is not None else None
        if self._mixture is None:
            self._order = Order(len(dataset), seed)
            return
        members = dataset.members(list(mixture or ()))
        self._members = [members[source] for source in self._mixture.sources]
        self._orders = [
            Order(len(own), _own_seed(seed, source))
            for source, own in zip(self._mixture.sources, self._members, strict=True)
        ]

    def batch(self, step: int) -> Numbered:
        """(epochs, numbers), each int64 [global_batch], read-only, of a run-wide, 0-based step.

        Ordered by lane (see order.py): equal contiguous parts, one per rank, read few blocks in common.
        """
        with self._one:
            return self._batch(step)

    def _made(self, step: int) -> Numbered:
        positions = np.arange(step * self.global_batch, (step + 1) * self.global_batch, dtype=np.int64)
        if self._mixture is None:
            epochs, numbers = self._order(positions)
            lanes = self._order.lane(positions)
        else:
            epochs, numbers, lanes = (np.empty_like(positions) for _ in range(3))
            sources, places = self._mixture(positions)
            for source, (order, members) in enumerate(zip(self._orders, self._members, strict=True)):
                rows = np.flatnonzero(sources == source)
                epochs[rows], own = order(places[rows])
                numbers[rows] = members(own)
                lanes[rows] = order.lane(places[rows])
        by_lane = np.argsort(lanes, kind="stable")
        epochs, numbers = epochs[by_lane], numbers[by_lane]
        epochs.flags.writeable = numbers.flags.writeable = False  # kept, and given to every caller alike
        return epochs, numbers


def _own_seed(seed: int, source: str) -> int:
    """A seed that depends on the source's name alone, so that others may come and go without reshuffling it."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{source}".encode()).digest()[:8])
