"""The samples of one source, or of some: from a position among them to a number in the data set."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stages.base.contract import UserError
from stages.train.data.repeats import BLOCK, Repeats, column_values

#: Cells cached: a shuffle works on some 600 blocks at a time (16 MB where all pairs are of one source).
_SLOTS = 1024
_NONE: pa.ChunkedArray = pa.chunked_array([], pa.int16())


class SourceSubset:
    """The samples of some sources, renumbered from 0 in the data set's order: pass by pass where pairs are repeated.

    It holds one number per pass and block of pairs, and the sources' rows in the blocks used last.
    """

    def __init__(
        self,
        codes: pa.ChunkedArray,
        chosen: NDArray[np.bool_],
        counts: NDArray[np.int64],
        times: pa.ChunkedArray,
        repeats: Repeats | None,
    ) -> None:
        """`chosen` [sources]: whether it has the samples of the source with this code; `counts` [passes, blocks]: its
        samples in each; the rest is as in :func:`subsets_by_source`."""
        self._codes = codes
        self._chosen = chosen
        self._times = times
        self._repeats = repeats
        self._blocks = counts.shape[1]
        self._ends = np.cumsum(counts.reshape(-1))
        """Samples up to the end of a cell, [passes * blocks]: a cell is a block in one pass."""
        slots = min(_SLOTS, len(self._ends))
        self._slot_of: dict[int, int] = {}
        self._cell_in = [-1] * slots
        self._next = 0
        self._firsts = np.zeros(slots, dtype=np.int64)
        """The first number in the data set of the cell in a slot."""
        # Pages that no short cell reaches take no memory.
        self._numbers = np.empty((slots, max(1, int(counts.max(initial=0)))), dtype=np.uint16)
        """What follows the first number, as distances from it."""

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __call__(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Numbers in the data set, int64 [n], of the samples at positions, int64 [n], 0 <= position < len."""
        cells, cell_of = np.unique(np.searchsorted(self._ends, positions, side="right"), return_inverse=True)
        if len(cells) > len(self._cell_in):
            return np.concatenate([self(part) for part in np.array_split(positions, 2)])
        slots = self._cached(cells.tolist())
        before = np.where(cells > 0, self._ends[cells - 1], 0)
        return self._firsts[slots[cell_of]] + self._numbers[slots[cell_of], positions - before[cell_of]]

    def _cached(self, cells: list[int]) -> NDArray[np.int64]:
        """Slots that hold the cells; missing cells replace those that were computed longest ago."""
        in_use = set(cells)
        for cell in cells:
            if cell in self._slot_of:
                continue
            while self._cell_in[self._next] in in_use:
                self._next = (self._next + 1) % len(self._cell_in)
            self._slot_of.pop(self._cell_in[self._next], None)
            numbers = self._numbers_in(cell)
            self._firsts[self._next] = numbers[0]
            self._numbers[self._next, : len(numbers)] = numbers - numbers[0]
            self._cell_in[self._next] = cell
            self._slot_of[cell] = self._next
        return np.array([self._slot_of[cell] for cell in cells], dtype=np.int64)

    def _numbers_in(self, cell: int) -> NDArray[np.int64]:
        """Numbers in the data set of the sources' samples in a cell."""
        repeat, block = divmod(cell, self._blocks)
        shown = self._chosen[column_values(self._codes.slice(block * BLOCK, BLOCK))]
        if repeat:
            shown &= column_values(self._times.slice(block * BLOCK, BLOCK)) > repeat
        rows = np.flatnonzero(shown)
        return rows + block * BLOCK if self._repeats is None else self._repeats.samples(repeat, block, rows)


def subsets_by_source(
    column: pa.ChunkedArray, times: pa.ChunkedArray | None, repeats: Repeats | None
) -> dict[str, SourceSubset]:
    """The subset of every source that has samples.

    `column`: each pair's source, dictionary-encoded; `times`, `repeats`: as in :class:`Repeats`, null where an epoch
    shows every pair once. Neither column is copied, so both may be memory-mapped.
    """
    names, codes, counts = _counted(column, times, repeats)
    times = _NONE if times is None else times
    return {
        name: SourceSubset(codes, np.arange(len(names)) == code, counts[code], times, repeats)
        for code, name in enumerate(names)
        if counts[code].any()
    }


def subset_without(
    sources: Collection[str], column: pa.ChunkedArray, times: pa.ChunkedArray | None, repeats: Repeats | None
) -> SourceSubset:
    """The samples of all sources but these, as one subset; the rest is as in :func:`subsets_by_source`."""
    names, codes, counts = _counted(column, times, repeats)
    chosen = np.array([name not in sources for name in names], dtype=bool)
    return SourceSubset(codes, chosen, counts[chosen].sum(axis=0), _NONE if times is None else times, repeats)


def _counted(
    column: pa.ChunkedArray, times: pa.ChunkedArray | None, repeats: Repeats | None
) -> tuple[list[str], pa.ChunkedArray, NDArray[np.int64]]:
    """The sources' names by code, each pair's code, and the samples of each source by pass and block of pairs."""
    column = column.unify_dictionaries()
    names = column.chunk(0).dictionary.to_pylist() if column.num_chunks else []
    codes = pa.chunked_array([chunk.indices for chunk in column.chunks], pa.int32())
    passes = repeats.passes if repeats is not None else 1
    blocks = range(0, len(codes), BLOCK)
    counts = np.zeros((len(names), passes, len(blocks)), dtype=np.int64)
    for block, start in enumerate(blocks):
        own = column_values(codes.slice(start, BLOCK))
        if times is None or repeats is None:
            counts[:, 0, block] = np.bincount(own, minlength=len(names))
            continue
        shows = column_values(times.slice(start, BLOCK)).astype(np.int64)
        cells = np.bincount(own.astype(np.int64) * (passes + 1) + shows, minlength=len(names) * (passes + 1))
        shown = cells.reshape(len(names), passes + 1)[:, ::-1].cumsum(axis=1)[:, ::-1]
        counts[:, :, block] = shown[:, 1:]
    return names, codes, counts


def mixture_subsets(subsets: Mapping[str, SourceSubset], sources: Sequence[str]) -> dict[str, SourceSubset]:
    """The subsets of a mixture's sources. Raises UserError unless it names exactly the sources of the data."""
    unknown = sorted(set(sources) - set(subsets))
    if unknown:
        known = ", ".join(sorted(subsets))
        raise UserError(f"mixture: the data hold no sample of {', '.join(unknown)}, only of {known}; remove it")
    unnamed = sorted(set(subsets) - set(sources))
    if unnamed:
        raise UserError(f"mixture: does not name {', '.join(unnamed)}; give each a weight, 0 to leave it out")
    return {source: subsets[source] for source in sources}
