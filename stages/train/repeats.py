"""Pairs that an epoch shows several times: from the number of a sample in the epoch to a pair."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

BLOCK = 8192
"""Pairs whose repeats are looked at together."""


class Repeats:
    """An epoch as passes over the pairs: the first shows every pair, pass k those that are shown more than k times.

    So the repeats of a pair are far apart, and where every pair is shown once, sample and pair have the same number. It
    holds one number per pass and block of pairs (some 1.5 MB per pass for a billion pairs), however many there are.
    """

    def __init__(self, times: pa.ChunkedArray, block: int = BLOCK) -> None:
        """`times`: how often each pair is shown, int16 [pairs], at least 1; stays where it is, e.g. memory-mapped."""
        self._times = times
        self._block = block
        counts = [self._counts(start) for start in range(0, len(times), block)]
        passes = max((len(count) for count in counts), default=0)
        shown = np.zeros((passes, len(counts) + 1), dtype=np.int64)
        for number, count in enumerate(counts):
            shown[: len(count), number + 1] = count
        self._starts = np.cumsum(shown, axis=1)
        """[passes, blocks + 1]: samples of a pass before a block."""
        self._ends = np.cumsum(self._starts[:, -1]) if passes else np.zeros(0, dtype=np.int64)
        self._rows = lru_cache(maxsize=512)(self._shown_rows)

    def __len__(self) -> int:
        """Samples in an epoch."""
        return int(self._ends[-1]) if len(self._ends) else 0

    def __call__(self, sample: int) -> tuple[int, int]:
        """(number of the pair, how often the epoch has shown it in earlier passes) of a sample of the epoch."""
        if sample < len(self._times):  # the first pass
            return sample, 0
        turn = int(np.searchsorted(self._ends, sample, side="right"))
        place = sample - int(self._ends[turn - 1])
        starts = self._starts[turn]
        block = int(np.searchsorted(starts, place, side="right")) - 1
        return int(self._rows(block, turn)[place - starts[block]]), turn

    def _counts(self, start: int) -> NDArray[np.int64]:
        """Per pass how many pairs of a block it shows."""
        by_times = np.bincount(self._times.slice(start, self._block).to_numpy())
        if by_times[0]:
            raise ValueError("a pair that is shown no time at all has no place in the index")
        return np.cumsum(by_times[::-1])[::-1][1:]

    def _shown_rows(self, block: int, turn: int) -> NDArray[np.int64]:
        start = block * self._block
        return start + np.flatnonzero(self._times.slice(start, self._block).to_numpy() > turn)


def shown_once(times: pa.ChunkedArray) -> bool:
    """Whether no pair is shown more than once."""
    return not len(times) or pc.max(times).as_py() <= 1
