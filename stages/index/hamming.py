"""Near neighbours among binary hashes, exactly: sorted tables over combinations of blocks, not all pairs.

The bits are cut into radius + k blocks. Two hashes that differ in at most `radius` bits agree in at least k blocks, so
sorting all hashes by each combination of k blocks (a *table*) brings every near pair together in some run of equal
keys (Manku, Jain, Das Sarma: "Detecting near-duplicates for web crawling", WWW 2007, section 3); whole hashes are
compared only there. A pair that agrees in more blocks meets in several tables and is reported by the first of them
alone, so nothing is kept to weed out repeats. Sorting short keys is what numpy does fastest, and neighbours in a run
lie side by side in memory.

More hashes than fit are divided into *cells*: of the tables that start with the same blocks, each needs to see only
rows that are equal in these. Some bits of a table's leading blocks name the cell (`shared`), the others make the keys
within it, so that the rows pass through as many tables as without cells (`stages/index/cells.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb
from typing import Any

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]
Rows = NDArray[np.int64]
Table = tuple[int, ...]
"""The blocks by which a table is sorted, ascending."""

_STEP = 1 << 15  # rows compared at a time: what they need stays in a core's cache
_KEY_BITS = 16  # numpy sorts integers of 16 bits by radix, three times as fast as wider ones
_MOST_TABLES = 20_000
# Measured nanoseconds, whose ratio is all that matters: one row through one table, one comparison within a run, one
# comparison with what a lookup found, one row handed to its cell.
_ROW_COST, _RUN_COST, _LOOKUP_COST, _MOVE_COST = 100.0, 4.0, 40.0, 300.0


@dataclass(frozen=True)
class Blocks:
    """A set of hashes cut for one search."""

    words: Words
    """[n, bits / 64]"""
    values: tuple[NDArray[Any], ...]
    """Per block [n]: its bits as an unsigned integer."""
    widths: tuple[int, ...]
    """Per block its number of bits."""
    agree: int
    """Blocks that a near pair surely agrees in."""

    def tables(self) -> list[Table]:
        """The tables of the search, in order."""
        return list(combinations(range(len(self.values)), self.agree))

    def key(self, table: Table, shared: Sequence[int] = ()) -> NDArray[np.uint16]:
        """Bits of a table's blocks, uint16 [n]: as many of each as fit. Equal blocks have equal keys.

        Left out are the lowest bits of its leading blocks, as many of each as `shared` says: rows of a cell share them.
        """
        key = np.zeros(len(self.words), dtype=np.uint16)
        room = _KEY_BITS
        for place, block in enumerate(table):
            known = shared[place] if place < len(shared) else 0
            width = min(self.widths[block] - known, room // (len(table) - place))
            room -= width
            value = self.values[block] >> self.values[block].dtype.type(known) if known else self.values[block]
            part = value.astype(np.uint16) & np.uint16((1 << width) - 1)
            key = part if width == _KEY_BITS else (key << np.uint16(width)) | part
        return key

    def cell(self, blocks: Table, shared: Sequence[int]) -> Rows:
        """The bits that name a cell, int64 [n]: of each of these blocks as many of the lowest as `shared` says."""
        value, above = np.zeros(len(self.words), dtype=np.int64), 0
        for block, width in zip(blocks, shared, strict=True):
            value |= (self.values[block].astype(np.int64) & ((1 << width) - 1)) << above
            above += width
        return value


def shared_bits(bits: int, radius: int, agree: int, rows: int, cell_rows: int) -> tuple[int, ...]:
    """Bits of each leading block of a table that name a cell, so that of `rows` rows about `cell_rows` at most share
    one. Empty if all may lie in one cell; whole blocks except for the last, so that few tables start differently."""
    return extended((), -(-rows // cell_rows), bits, radius, agree)


def extended(shared: Sequence[int], times: int, bits: int, radius: int, agree: int) -> tuple[int, ...]:
    """More bits than `shared`, for `times` as many cells or more, as far as `agree` blocks have bits."""
    wanted = sum(shared) + max(0, times - 1).bit_length()
    width = bits // (radius + agree) if radius + agree else bits  # of the narrowest block
    whole, rest = divmod(wanted, width)
    return (*(width,) * whole, *((rest,) if rest else ()))[:agree]


def cut(words: Words, radius: int, agree: int) -> Blocks:
    """Cut hashes [n, bits / 64] into radius + agree blocks, dealing the bits out in turn.

    Neighbouring bits of a perceptual hash are neighbouring frequencies and carry much the same; dealt out, every block
    separates pictures about as well. With `agree` 0 there is one table, of all hashes: brute force.
    """
    bits, count = 64 * words.shape[1], radius + agree
    if agree == 0 or count > bits:
        return Blocks(words, (), (), 0)
    values, widths = [], []
    for block in range(count):
        mine = range(block, bits, count)
        value = np.zeros(len(words), dtype=np.uint64)
        for bit in mine:
            value = (value << np.uint64(1)) | ((words[:, bit // 64] >> np.uint64(63 - bit % 64)) & np.uint64(1))
        values.append(value.astype(np.uint16 if len(mine) <= 16 else np.uint32 if len(mine) <= 32 else np.uint64))
        widths.append(len(mine))
    return Blocks(words, tuple(values), tuple(widths), agree)


def plan(words: Words, radius: int, rows: int | None = None, cell_rows: int = 1 << 62) -> Blocks:
    """The cut that finds all near pairs of a set in the least time, judged by a few tables of each candidate.

    `words` may be a sample of `rows` hashes, which are searched in cells of about `cell_rows`.
    """
    bits, count = 64 * words.shape[1], len(words) if rows is None else rows
    pairs_each = (count / max(1, len(words))) ** 2
    best, cheapest = cut(words, radius, 0), _RUN_COST * count**2 / 2
    for agree in range(1, bits - radius + 1):
        number = comb(radius + agree, agree)
        if number > _MOST_TABLES or number * count * _ROW_COST > cheapest:
            break
        blocks = cut(words, radius, agree)
        tables = blocks.tables()
        judged = tables[:: max(1, number // 3)][:3]
        shared = shared_bits(bits, radius, agree, count, cell_rows)
        met = sum(_meetings_in_cells(blocks, table, shared) for table in judged) / len(judged) * pairs_each
        passes = len({table[: len(shared)] for table in tables}) if shared else 0
        cost = number * (count * _ROW_COST + met * _RUN_COST) + passes * count * _MOVE_COST
        if cost < cheapest:
            best, cheapest = blocks, cost
    return best


def near_within(
    blocks: Blocks, tables: Sequence[Table], radius: int, shared: Sequence[int] = ()
) -> Iterator[tuple[Rows, Rows]]:
    """Parts of (row, other row) of the near pairs that some of :meth:`Blocks.tables` report.

    All tables together report each pair of rows that differ in at most `radius` bits once, in one of its two orders.
    An equal hash in another row counts as near. The rows may be a cell of all tables given, named by `shared` bits.
    """
    if len(blocks.words) < 2:
        return
    for table in tables:
        key = blocks.key(table, shared)
        order = np.argsort(key, kind="stable")
        for row, other in _runs(key[order], order, blocks.words, radius):
            row, other = _reported(blocks, row, blocks, other, table)
            if len(row):
                yield row, other


def near_between(queries: Words, base: Words, radius: int) -> Iterator[tuple[Rows, Rows]]:
    """Parts of (row of `queries`, row of `base`) whose hashes differ in at most `radius` bits, each once.

    Meant for a base that is the smaller of the two.
    """
    if not len(queries) or not len(base):
        return
    held = _lookup_plan(queries, base, radius)
    query_blocks = cut(queries, radius, held.agree)
    for table in held.tables():
        key = held.key(table)
        order = np.argsort(key, kind="stable")
        starts = np.zeros((1 << _KEY_BITS) + 1, dtype=np.int64)
        np.cumsum(np.bincount(key, minlength=1 << _KEY_BITS), out=starts[1:])
        hashes = base[order]
        keys = query_blocks.key(table).astype(np.int64)
        for begin in range(0, len(queries), _STEP):
            mine = keys[begin : begin + _STEP]
            place, stop = starts[mine], starts[mine + 1]
            row = np.flatnonzero(place < stop)
            place, stop = place[row], stop[row]
            row += begin
            while len(row):
                close = distances(queries[row], hashes[place]) <= radius
                if close.any():
                    query_rows, base_rows = _reported(query_blocks, row[close], held, order[place[close]], table)
                    if len(query_rows):
                        yield query_rows, base_rows
                place = place + 1
                more = place < stop
                row, place, stop = row[more], place[more], stop[more]


def distances(left: Words, right: Words) -> NDArray[np.int16]:
    """Different bits of hashes [n, bits / 64], row by row."""
    return np.bitwise_count(left ^ right).sum(axis=1, dtype=np.int16)


def _runs(keys: NDArray[np.uint16], order: Rows, words: Words, radius: int) -> Iterator[tuple[Rows, Rows]]:
    """Near pairs within runs of equal (sorted) keys: each row against the one d places on, for growing d."""
    length = _run_lengths(keys)
    columns = [words[:, word][order] for word in range(words.shape[1])]
    shift = 1
    while True:
        # Whole runs leave, so the rows of those that stay keep their neighbours.
        stay = length > shift
        if not stay.all():
            keys, order, length = keys[stay], order[stay], length[stay]
            columns = [column[stay] for column in columns]
        if not len(keys):
            return
        stop = shift + 1 + shift // 4
        pairs, waiting = [], 0
        for distance in range(shift, stop):
            for at in _near_shifted(columns, distance, radius):
                at = at[keys[at] == keys[at + distance]]
                pairs.append((order[at], order[at + distance]))
                waiting += len(at)
            if pairs and (waiting >= _STEP or distance == stop - 1):
                yield np.concatenate([row for row, _ in pairs]), np.concatenate([other for _, other in pairs])
                pairs, waiting = [], 0
        shift = stop


def _near_shifted(columns: Sequence[Words], shift: int, radius: int) -> Iterator[Rows]:
    """Places i at which the hashes (one array per word) of i and i + shift are near."""
    count = len(columns[0]) - shift
    differ, bits = np.empty(_STEP, np.uint64), np.empty(_STEP, np.uint8)
    total, near = np.empty(_STEP, np.uint8), np.empty(_STEP, np.bool_)
    for begin in range(0, count, _STEP):
        size = min(_STEP, count - begin)
        for number, column in enumerate(columns):
            left, right = column[begin : begin + size], column[begin + shift : begin + shift + size]
            target = bits if number else total
            np.bitwise_count(np.bitwise_xor(left, right, out=differ[:size]), out=target[:size])
            if number:
                np.add(total[:size], bits[:size], out=total[:size])
        if np.less_equal(total[:size], radius, out=near[:size]).any():
            yield np.flatnonzero(near[:size]) + begin


def _reported(left: Blocks, row: Rows, right: Blocks, other: Rows, table: Table) -> tuple[Rows, Rows]:
    """Those pairs that it is this table's to report: they agree in its blocks, and in no other before its last one."""
    # Near pairs agree in most blocks, so most pairs are another table's and leave at the first look.
    for block in range(table[-1] + 1 if table else 0):
        agree = left.values[block][row] == right.values[block][other]
        mine = np.flatnonzero(agree if block in table else ~agree)
        row, other = row[mine], other[mine]
    return row, other


def _run_lengths(keys: NDArray[np.uint16]) -> NDArray[np.int32]:
    """Per sorted key how often it occurs."""
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    sizes = np.diff(np.append(starts, len(keys)))
    return np.repeat(sizes, sizes).astype(np.int32)


def _meetings(keys: NDArray[np.uint16], others: NDArray[np.uint16] | None = None) -> float:
    """Pairs with equal keys: within one set, or between two."""
    held = np.bincount(keys, minlength=1 << _KEY_BITS).astype(np.float64)
    if others is None:
        return float((held * (held - 1)).sum() / 2)
    return float(held @ np.bincount(others, minlength=1 << _KEY_BITS))


def _meetings_in_cells(blocks: Blocks, table: Table, shared: Sequence[int]) -> float:
    """Pairs with equal keys in the same cell."""
    key = blocks.key(table, shared)
    if not shared:
        return _meetings(key)
    whole = (blocks.cell(table[: len(shared)], shared) << _KEY_BITS) | key
    held = np.unique(whole, return_counts=True)[1].astype(np.float64)
    return float((held * (held - 1)).sum() / 2)


def _lookup_plan(queries: Words, base: Words, radius: int) -> Blocks:
    """As :func:`plan`, for looking up `queries` in tables of `base`; judged by a sample of the queries."""
    bits, count = 64 * base.shape[1], len(queries)
    sample = queries[:: max(1, count // 10_000)]
    best, cheapest = cut(base, radius, 0), _LOOKUP_COST * count * len(base)
    for agree in range(1, bits - radius + 1):
        number = comb(radius + agree, agree)
        if number > _MOST_TABLES or number * count * _ROW_COST > cheapest:
            break
        blocks, query_blocks = cut(base, radius, agree), cut(sample, radius, agree)
        tables = blocks.tables()
        judged = tables[:: max(1, number // 3)][:3]
        met = sum(_meetings(blocks.key(table), query_blocks.key(table)) for table in judged) / len(judged)
        cost = number * (count * _ROW_COST + met * count / len(sample) * _LOOKUP_COST)
        if cost < cheapest:
            best, cheapest = blocks, cost
    return best
