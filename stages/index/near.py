"""Which pictures are near one another, or near a benchmark's: hashes searched in Ray tasks, thumbnails compared."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from numpy.typing import NDArray

from stages.base.contract import UserError
from stages.index.config import Hash
from stages.index.hamming import Blocks, Rows, Table, Words, distances, near_between, near_within, plan
from stages.index.likeness import differences, first_positions
from stages.index.ray_tasks import in_order
from stages.index.schema import NEAR

_QUERIES = 100_000  # hashes looked up by one task
_PAIRS = 1_000_000  # pairs whose thumbnails one task compares


@dataclass(frozen=True)
class Pictures:
    """What is compared, row by row, and how."""

    hash: Hash
    words: Words
    """[n, bits / 64]"""
    thumbnails: NDArray[np.uint8]
    """[n, 192]"""

    @staticmethod
    def of(table: pa.Table, hash: Hash) -> Pictures:
        """From the fixed-size binary columns of that name and `thumbnail`."""
        return Pictures(hash, bytes_of(table[hash]).view(">u8").astype(np.uint64), bytes_of(table["thumbnail"]))

    def __len__(self) -> int:
        return len(self.words)

    def take(self, rows: NDArray[Any]) -> Pictures:
        """Some of the rows, in the order given."""
        return Pictures(self.hash, self.words[rows], self.thumbnails[rows])

    @cached_property
    def first_equal(self) -> Rows:
        """Per row the first one with the same hash and thumbnail, int64 [n]."""
        thumbnails = first_positions(self.thumbnails) if self._positions else self.thumbnails
        return first_of(np.concatenate([self.words.view(np.uint8), thumbnails], axis=1))

    def compare(self, rows: Rows, base: Pictures, others: Rows) -> pa.Table:
        """Columns `distance`, `difference`, `relative_difference` of pairs (row here, row of `base`)."""
        plain, relative = differences(self.thumbnails[rows], base.thumbnails[others], self._positions)
        columns = [distances(self.words[rows], base.words[others]), plain, relative]
        return pa.table([pa.array(column) for column in columns], names=NEAR.names[2:])

    @property
    def _positions(self) -> bool:
        return self.hash == "phash_d4"


@dataclass(frozen=True)
class _Distinct:
    """The distinct hashes among rows, and the rows that have each."""

    words: Words
    order: Rows
    """Rows, those of one hash together, ascending."""
    starts: Rows
    """Per distinct hash its place in `order`, and the end."""

    @staticmethod
    def of(words: Words) -> _Distinct:
        first = first_of(words.view(np.uint8))
        order = np.argsort(first, kind="stable")
        leads = np.flatnonzero(np.concatenate([[True], np.diff(first[order]) != 0])) if len(order) else order
        return _Distinct(words[order[leads]], order, np.append(leads, len(order)))

    def sizes(self, numbers: Rows) -> Rows:
        """Rows that have each of these hashes."""
        return self.starts[numbers + 1] - self.starts[numbers]


@dataclass(frozen=True)
class _Expansion:
    """Pairs of distinct hashes, and through them all pairs of rows that have them, countable without listing them."""

    left: _Distinct
    right: _Distinct
    one: Rows
    other: Rows
    ends: Rows
    """Pairs of rows up to and with each pair of hashes."""

    @staticmethod
    def of(left: _Distinct, right: _Distinct, one: Rows, other: Rows) -> _Expansion:
        return _Expansion(left, right, one, other, np.cumsum(left.sizes(one) * right.sizes(other)))

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def rows(self, begin: int, end: int) -> tuple[Rows, Rows]:
        """Pairs of rows number begin..end."""
        flat = np.arange(begin, min(end, len(self)))
        pair = np.searchsorted(self.ends, flat, side="right")
        one, other = self.one[pair], self.other[pair]
        size = self.right.sizes(other)
        place = flat - (self.ends[pair] - self.left.sizes(one) * size)
        return self.left.order[self.left.starts[one] + place // size], self.right.order[
            self.right.starts[other] + place % size
        ]


def near_copies(pictures: Pictures, radius: int, most: int) -> pa.Table:
    """Rows (first, second, distance, difference, relative_difference) as the schema `NEAR` describes them.

    Raises UserError for more than `most`.
    """
    count = len(pictures)
    leader = pictures.first_equal
    followers = np.flatnonzero(leader != np.arange(count))
    star = pictures.compare(leader[followers], pictures, followers)
    parts = [_joined(leader[followers], followers, star)]
    leaders = np.flatnonzero(leader == np.arange(count))
    distinct = _Distinct.of(pictures.words[leaders])
    candidates = _search(distinct.words, radius)
    own = np.flatnonzero(distinct.sizes(np.arange(len(distinct.words))) > 1)  # equal hashes, different thumbnails
    expansion = _Expansion.of(distinct, distinct, np.append(candidates[0], own), np.append(candidates[1], own))
    _refuse_crowds(expansion, most)
    shared = ray.put((pictures.take(leaders), expansion))
    ranges = ((shared, begin, begin + _PAIRS) for begin in range(0, len(expansion), _PAIRS))
    for part in in_order(_compare_within, ranges):
        parts.append(part.set_column(0, "first", _gather(leaders, part["first"])))
        parts[-1] = parts[-1].set_column(1, "second", _gather(leaders, part["second"]))
    table = pa.concat_tables([part.cast(NEAR) for part in parts])
    order = np.lexsort((table["second"].to_numpy(), table["first"].to_numpy()))
    return table.take(pa.array(order)).combine_chunks()


def near_matches(pictures: Pictures, base: Pictures, radius: int, most: int) -> pa.Table:
    """Rows (first: of `pictures`, second: of `base`, and how much they differ), unsorted, one per near pair.

    Of `pictures` with equal hash and thumbnail only the first is named. Raises UserError for more than `most`.
    """
    leaders = np.flatnonzero(pictures.first_equal == np.arange(len(pictures)))
    queries, held = _Distinct.of(pictures.words[leaders]), _Distinct.of(base.words)
    words = ray.put((queries.words, held.words, radius))
    calls = ((words, begin, begin + _QUERIES) for begin in range(0, len(queries.words), _QUERIES))
    one, other = _gathered(in_order(_search_between, calls))
    expansion = _Expansion.of(queries, held, one, other)
    _refuse_crowds(expansion, most)
    shared = ray.put((pictures.take(leaders), base, expansion))
    ranges = ((shared, begin, begin + _PAIRS) for begin in range(0, len(expansion), _PAIRS))
    parts = [
        part.set_column(0, "first", _gather(leaders, part["first"])) for part in in_order(_compare_between, ranges)
    ]
    return pa.concat_tables([part.cast(NEAR) for part in parts] or [NEAR.empty_table()])


def first_of(rows: NDArray[np.uint8]) -> Rows:
    """Per row [n, bytes] the first that is equal to it, int64 [n]."""
    flat = pa.py_buffer(np.ascontiguousarray(rows))
    coded = pa.FixedSizeBinaryArray.from_buffers(pa.binary(rows.shape[1]), len(rows), [None, flat]).dictionary_encode()
    code = coded.indices.to_numpy()
    first = np.empty(len(coded.dictionary), dtype=np.int64)
    first[code[::-1]] = np.arange(len(rows))[::-1]  # the last write wins: the smallest row
    return first[code]


def bytes_of(column: pa.ChunkedArray | pa.Array) -> NDArray[np.uint8]:
    """A fixed-size binary column without nulls as an array [n, width]."""
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    width = whole.type.byte_width
    if not len(whole):
        return np.empty((0, width), dtype=np.uint8)
    data = np.frombuffer(whole.buffers()[1], dtype=np.uint8)
    return data[whole.offset * width : (whole.offset + len(whole)) * width].reshape(-1, width)


def _search(words: Words, radius: int) -> tuple[Rows, Rows]:
    """All near pairs of distinct hashes."""
    blocks = plan(words, radius)
    tables = blocks.tables()
    share = max(1, min(len(tables), 4 * int(ray.cluster_resources().get("CPU", 1))))
    shared = ray.put((blocks, radius))
    return _gathered(in_order(_search_within, ((shared, tables[number::share]) for number in range(share))))


def _search_within(shared: tuple[Blocks, int], tables: list[Table]) -> tuple[Rows, Rows]:
    blocks, radius = shared
    return _gathered(near_within(blocks, tables, radius))


def _search_between(shared: tuple[Words, Words, int], begin: int, end: int) -> tuple[Rows, Rows]:
    queries, base, radius = shared
    row, other = _gathered(near_between(queries[begin:end], base, radius))
    return row + begin, other


def _gathered(parts: Iterator[tuple[Rows, Rows]]) -> tuple[Rows, Rows]:
    held = list(parts)
    none = np.empty(0, dtype=np.int64)
    return np.concatenate([none, *(row for row, _ in held)]), np.concatenate([none, *(other for _, other in held)])


def _compare_within(shared: tuple[Pictures, _Expansion], begin: int, end: int) -> pa.Table:
    pictures, expansion = shared
    row, other = expansion.rows(begin, end)
    # The rows of one hash against themselves meet twice, and each meets itself.
    once = (row < other) | (pictures.words[row] != pictures.words[other]).any(axis=1)
    first, second = np.minimum(row, other)[once], np.maximum(row, other)[once]
    return _joined(first, second, pictures.compare(first, pictures, second))


def _compare_between(shared: tuple[Pictures, Pictures, _Expansion], begin: int, end: int) -> pa.Table:
    pictures, base, expansion = shared
    row, other = expansion.rows(begin, end)
    return _joined(row, other, pictures.compare(row, base, other))


def _joined(first: Rows, second: Rows, compared: pa.Table) -> pa.Table:
    ends = [pa.array(first.astype(np.int32)), pa.array(second.astype(np.int32))]
    return pa.table([*ends, *compared.columns], names=NEAR.names)


def _gather(rows: Rows, places: pa.ChunkedArray) -> pa.Array:
    return pa.array(rows[places.to_numpy()].astype(np.int32))


def _refuse_crowds(expansion: _Expansion, most: int) -> None:
    if len(expansion) > most:
        raise UserError(
            f"index: {len(expansion):,} pairs of near pictures, above index.max_near={most:,}; lower index.radius and"
            " the selection's radius, or raise the limit if there is memory (18 bytes each)"
        )
