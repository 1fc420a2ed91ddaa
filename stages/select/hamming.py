"""Near neighbours among binary hashes by multi-index hashing: an index, not all pairs.

A hash is cut into m chunks and every chunk gets a table. If two hashes differ in at most r bits then, by the pigeonhole
principle, one of the first (r mod m) + 1 chunks differs in at most floor(r/m) bits or another chunk in at most
floor(r/m) - 1 (Norouzi, Punjani, Fleet: "Fast exact search in Hamming space with multi-index hashing", 2014, section
3.1). So looking up each chunk with that few bits flipped finds every pair; whole hashes are compared only for those.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from math import ceil, comb

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]
Rows = NDArray[np.int64]

_BLOCK = 1 << 21  # candidate pairs compared at a time: some 100 MB of working memory
_WIDEST = 20  # bits of a chunk: a table of 2^20 starts


@dataclass(frozen=True)
class _Chunk:
    start: int
    stop: int
    radius: int

    @property
    def width(self) -> int:
        return self.stop - self.start


def near_pairs(queries: Words, base: Words, radius: int, only_earlier: bool = False) -> Iterator[tuple[Rows, Rows]]:
    """All (row of `queries`, row of `base`) whose hashes [n, bits / 64] differ in at most `radius` bits, each once.

    Yields blocks of pairs in no particular order. With `only_earlier` (for a set against itself) just the pairs whose
    base row is smaller than the query row.
    """
    if not len(queries) or not len(base):
        return
    plan = _plan(64 * base.shape[1], radius, len(queries), len(base))
    for number, chunk in enumerate(plan):
        keys, wanted = _chunk_of(base, chunk), _chunk_of(queries, chunk)
        order = np.argsort(keys, kind="stable")
        starts = np.zeros((1 << chunk.width) + 1, dtype=np.int64)
        np.cumsum(np.bincount(keys, minlength=1 << chunk.width), out=starts[1:])
        for mask in _flips(chunk):
            bucket = wanted ^ mask
            for row, place in _expand(starts[bucket], starts[bucket + 1]):
                other = order[place]
                if only_earlier:
                    earlier = other < row
                    row, other = row[earlier], other[earlier]
                close = _distance(queries[row], base[other]) <= radius
                row, other = row[close], other[close]
                # A pair that an earlier chunk's table also holds was reported there.
                for before in plan[:number]:
                    apart = np.bitwise_count(_chunk_of(queries[row], before) ^ _chunk_of(base[other], before))
                    fresh = apart > before.radius
                    row, other = row[fresh], other[fresh]
                if len(row):
                    yield row, other


def _distance(left: Words, right: Words) -> NDArray[np.int64]:
    return np.bitwise_count(left ^ right).sum(axis=1, dtype=np.int64)


def _plan(bits: int, radius: int, queries: int, base: int) -> list[_Chunk]:
    """The cheapest cut: a lookup costs about as much as comparing one candidate, and a bucket holds base / 2^width."""
    best: tuple[float, list[_Chunk]] | None = None
    for m in range(ceil(bits / _WIDEST), bits + 1):
        edges = [round(i * bits / m) for i in range(m + 1)]
        share, rest = divmod(radius, m)
        cut = [_Chunk(edges[i], edges[i + 1], share if i <= rest else share - 1) for i in range(m)]
        cut = [chunk for chunk in cut if chunk.radius >= 0]
        cost = sum(
            sum(comb(c.width, k) for k in range(c.radius + 1)) * queries * (1 + 3 * base / 2**c.width) + 2**c.width
            for c in cut
        )
        if best is None or cost < best[0]:
            best = (cost, cut)
    assert best is not None
    return best[1]


def _chunk_of(words: Words, chunk: _Chunk) -> Rows:
    """The bits start..stop of each hash, counted from the most significant bit of its first word, as an integer."""
    value = np.zeros(len(words), dtype=np.uint64)
    for word in range(chunk.start // 64, (chunk.stop - 1) // 64 + 1):
        low, high = max(chunk.start, 64 * word) - 64 * word, min(chunk.stop, 64 * word + 64) - 64 * word
        part = (words[:, word] >> np.uint64(64 - high)) & np.uint64((1 << (high - low)) - 1)
        value = (value << np.uint64(high - low)) | part
    return value.astype(np.int64)


def _flips(chunk: _Chunk) -> Iterator[int]:
    for count in range(chunk.radius + 1):
        for places in combinations(range(chunk.width), count):
            yield sum(1 << place for place in places)


def _expand(starts: Rows, stops: Rows) -> Iterator[tuple[Rows, Rows]]:
    """Every (row, place) with starts[row] <= place < stops[row], in blocks of bounded size."""
    sizes = stops - starts
    rows = np.flatnonzero(sizes)
    ends = np.cumsum(sizes[rows])
    total = int(ends[-1]) if len(ends) else 0
    for begin in range(0, total, _BLOCK):
        flat = np.arange(begin, min(begin + _BLOCK, total))
        owner = np.searchsorted(ends, flat, side="right")
        offset = flat - (ends[owner] - sizes[rows[owner]])
        yield rows[owner], starts[rows[owner]] + offset
