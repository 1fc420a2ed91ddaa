"""Pairs that an epoch shows several times: from the number of a sample in the epoch to a pair, and back."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stages.train.data.shuffle import grouped

BLOCK = 8192
"""Pairs per block."""


class Repeats:
    """An epoch as passes over the pairs: the first shows every pair, pass k those that are shown more than k times.

    So the repeats of a pair are far apart, and where every pair is shown once, sample and pair have the same number. It
    holds one number per pass and block of pairs (some 1.5 MB per pass for a billion pairs), however many there are.
    """

    def __init__(self, times: pa.ChunkedArray, block: int = BLOCK) -> None:
        """`times`: how often each pair is shown, int16 [pairs], at least 1; not copied, it may be memory-mapped."""
        self._times: pa.ChunkedArray | None = times
        self._block = block
        counts = [self._counts(times, start) for start in range(0, len(times), block)]
        passes = max((len(count) for count in counts), default=0)
        shown = np.zeros((passes, len(counts) + 1), dtype=np.int64)
        for number, count in enumerate(counts):
            shown[: len(count), number + 1] = count
        self._starts = np.cumsum(shown, axis=1)
        """[passes, blocks + 1]: samples of a pass before a block."""
        self._ends = np.cumsum(self._starts[:, -1]) if passes else np.zeros(0, dtype=np.int64)
        self._rows = lru_cache(maxsize=512)(self._shown_rows)

    def __getstate__(self) -> dict[str, Any]:
        # The column is mapped from a file; a copy in another process maps it again (`attach`).
        return {"_times": None, "_block": self._block, "_starts": self._starts, "_ends": self._ends}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._rows = lru_cache(maxsize=512)(self._shown_rows)

    @property
    def attached(self) -> bool:
        """False in a copy that was pickled, until it is given its column."""
        return self._times is not None

    def attach(self, times: pa.ChunkedArray | None) -> None:
        """Give a copy that was pickled the column it was made from."""
        self._times = times

    def __len__(self) -> int:
        """Samples in an epoch."""
        return int(self._ends[-1]) if len(self._ends) else 0

    @property
    def passes(self) -> int:
        """Number of passes: how often an epoch shows its most repeated pair."""
        return len(self._ends)

    def __call__(self, sample: int) -> tuple[int, int]:
        """(number of the pair, number of earlier passes that show it) of a sample of the epoch."""
        if len(self._ends) and sample < self._ends[0]:  # the first pass
            return sample, 0
        repeat = int(np.searchsorted(self._ends, sample, side="right"))
        position = sample - int(self._ends[repeat - 1])
        starts = self._starts[repeat]
        block = int(np.searchsorted(starts, position, side="right")) - 1
        return block * self._block + int(self._rows(block, repeat)[position - starts[block]]), repeat

    def pairs(self, samples: NDArray[np.int64]) -> NDArray[np.int64]:
        """Numbers of the pairs, int64 [n], of samples of the epoch, int64 [n]."""
        found = samples.copy()
        for repeat, rows in grouped(np.searchsorted(self._ends, samples, side="right")):
            if not repeat:
                continue
            positions, starts = samples[rows] - self._ends[repeat - 1], self._starts[repeat]
            for block, within in grouped(np.searchsorted(starts, positions, side="right") - 1):
                shown = self._rows(block, repeat)[positions[within] - starts[block]]
                found[rows[within]] = block * self._block + shown
        return found

    def samples(self, repeat: int, block: int, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Numbers in the epoch, int64 [n], of pairs shown in pass `repeat`; `rows` count from the start of a block."""
        if not repeat:
            return block * self._block + rows
        return self._ends[repeat - 1] + self._starts[repeat, block] + np.searchsorted(self._rows(block, repeat), rows)

    def _counts(self, times: pa.ChunkedArray, start: int) -> NDArray[np.int64]:
        """Number of pairs of a block that each pass shows."""
        by_times = np.bincount(column_values(times.slice(start, self._block)))
        if by_times[0]:
            raise ValueError("the index lists a pair that is shown 0 times")
        return np.cumsum(by_times[::-1])[::-1][1:]

    def _shown_rows(self, block: int, repeat: int) -> NDArray[np.int64]:
        """Pairs of a block that pass `repeat` shows, ascending, counted from the block's start."""
        if self._times is None:
            raise RuntimeError("this copy was pickled: attach the column of repeats first")
        return np.flatnonzero(column_values(self._times.slice(block * self._block, self._block)) > repeat)


def column_values(column: pa.ChunkedArray) -> NDArray[Any]:
    """The values of a column of integers without nulls; a view where it is one chunk.

    Arrow's own conversion imports pandas wherever it is installed: a second at the start of each worker process.
    """
    dtype = np.dtype(str(column.type))
    parts = [
        np.frombuffer(chunk.buffers()[1], dtype, len(chunk), chunk.offset * dtype.itemsize)
        for chunk in column.chunks
        if len(chunk)
    ]
    return parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, dtype), *parts])


def shown_once(times: pa.ChunkedArray) -> bool:
    """Whether no pair is shown more than once."""
    return all(column_values(pa.chunked_array([chunk])).max() <= 1 for chunk in times.chunks if len(chunk))
