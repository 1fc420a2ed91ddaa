"""Near pairs among more hashes than a process holds: tables of :mod:`stages.index.hamming`, cell by cell, in tasks.

The tables that start with the same blocks need to see only rows that are equal in these. So the rows are handed to
*cells* by some bits of those blocks, once per such group of tables, and each cell runs its group's tables alone. All
rows pass through each table once, as without cells, and no process holds more than a cell.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from stages.base.exchange import Exchange
from stages.base.tasks import Tasks
from stages.index.columns import Column, Rows
from stages.index.hamming import Table, Words, cut, distances, extended, near_within, plan, shared_bits

#: Hashes of a cell, about: some 60 MB of working memory per million.
CELL_ROWS = 1_000_000
_SAMPLE = 1 << 18  # hashes by which the cut is chosen
_PASSES = 32_000_000  # rows times tables of one task: some seconds
_FILE_PAIRS = 1_000_000  # pairs of hashes in one file, about
_GROUPS = 8  # groups of tables whose rows lie in cells at a time: as many copies of the hashes on disk
_FINER = 16  # cells into which one of far too many rows is divided further


@dataclass(frozen=True)
class Distinct:
    """The distinct hashes of a search, by bucket. A hash is named by a number; numbers ascend over the buckets."""

    bits: int
    words: Column
    """uint64 [hashes, bits / 64]"""
    places: Column
    """int64: a hash's number, counted from the first of its bucket."""
    numbers: Rows
    """First number of each bucket, and of none."""
    sizes: Column
    """int32, by number: rows that have the hash."""

    def __len__(self) -> int:
        return int(self.words.starts[-1])

    def hashes(self, bucket: int) -> Words:
        """[hashes, bits / 64] of one bucket."""
        return np.asarray(self.words.of(bucket)).reshape(-1, self.bits // 64)

    def read(self, bucket: int) -> tuple[Words, Rows, Any]:
        """Words, numbers and sizes of one bucket."""
        places = self.places.of(bucket)
        return self.hashes(bucket), places + self.numbers[bucket], self.sizes.of(bucket)[places]


@dataclass(frozen=True)
class PairFile:
    """A file of near pairs that a task left: int64 [pairs, 3] of (number, other number, distance)."""

    file: str
    pairs: int
    rows: int
    """Pairs of rows that have the hashes: at least this many, where the task stopped at `most`."""
    start: int = 0
    """What is added to the numbers in the file."""


@dataclass(frozen=True)
class _Search:
    """What all tasks of one search share."""

    folder: str
    distinct: Distinct
    radius: int
    agree: int
    shared: tuple[int, ...]
    """Bits of each leading block of a table that name a cell."""
    cell_rows: int
    most: int


def search(
    tasks: Tasks, folder: str, distinct: Distinct, radius: int, most: int, cell_rows: int = CELL_ROWS
) -> Iterator[PairFile]:
    """All pairs of distinct hashes that differ in at most `radius` bits, each once, in files below `folder`.

    A task that comes to more than `most` pairs of rows stops there.
    """
    if len(distinct) < 2:
        return
    agree = plan(_sampled(distinct), radius, len(distinct), cell_rows).agree
    yield from search_cut(tasks, folder, distinct, radius, agree, most, cell_rows)


def search_cut(
    tasks: Tasks, folder: str, distinct: Distinct, radius: int, agree: int, most: int, cell_rows: int
) -> Iterator[PairFile]:
    """As :func:`search`, with blocks in which near hashes agree."""
    blocks = cut(np.empty((0, distinct.bits // 64), np.uint64), radius, agree)
    shared = shared_bits(distinct.bits, radius, blocks.agree, len(distinct), cell_rows)
    search = _Search(folder, distinct, radius, blocks.agree, shared, cell_rows, most)
    told = tasks.share(search)
    groups = list(_grouped(blocks.tables(), len(shared)).items())
    buckets = _bundles(np.diff(distinct.words.starts), 2 * cell_rows)
    number = 0
    for begin in range(0, len(groups), _GROUPS):
        batch = groups[begin : begin + _GROUPS]
        places = [prefix for prefix, _ in batch]
        calls = ((told, places, task, buckets[task]) for task in range(len(buckets)))
        held = sum(tasks.map(_hand_out, calls), np.zeros((len(batch), 1 << sum(shared)), np.int64))
        work = [piece for place, (_, tables) in enumerate(batch) for piece in _pieces(search, place, tables, held)]
        for files in tasks.map(_search_piece, ((told, number + n, piece) for n, piece in enumerate(work))):
            yield from files
        number += len(work)
        for place in range(len(batch)):
            shutil.rmtree(_cells(search, place).folder)


@dataclass(frozen=True)
class _Piece:
    """The work of one task: some tables over some cells."""

    place: int
    """Which of the exchanges holds the rows."""
    cells: tuple[int, ...]
    tables: tuple[Table, ...]
    finer: tuple[int, ...] = ()
    """Bits that name a part of the cell; all where empty."""
    part: int = 0
    """Name of the part: of `finer` bits of the tables' leading blocks."""


def _pieces(search: _Search, place: int, tables: Sequence[Table], held: Any) -> Iterator[_Piece]:
    """The work on one group of tables, of about equal size: cells together, or a cell's tables apart."""
    sizes = held[place]
    waiting: list[int] = []
    load = 0
    for cell in np.flatnonzero(sizes > 1).tolist():
        passes = int(sizes[cell]) * len(tables)
        if passes > _PASSES:
            yield from _apart(search, place, cell, tables, int(sizes[cell]))
            continue
        if load + passes > _PASSES:
            yield _Piece(place, tuple(waiting), tuple(tables))
            waiting, load = [], 0
        waiting.append(cell)
        load += passes
    if waiting:
        yield _Piece(place, tuple(waiting), tuple(tables))


def _apart(search: _Search, place: int, cell: int, tables: Sequence[Table], rows: int) -> Iterator[_Piece]:
    """One cell's tables in several tasks; and its rows, too, where it has far more than a cell should."""
    finer: tuple[int, ...] = ()
    parts = 1
    groups: dict[Table, list[Table]] = {(): list(tables)}
    if rows > 4 * search.cell_rows:
        finer = _extended(search, search.shared)
        if finer != search.shared:
            parts = 1 << (sum(finer) - sum(search.shared))
            groups = _grouped(tables, len(finer))
        else:
            finer = ()
    at_once = max(1, _PASSES * parts // rows)
    for mine in groups.values():
        for begin in range(0, len(mine), at_once):
            for part in range(parts):
                name = (part << sum(search.shared)) | cell
                yield _Piece(place, (cell,), tuple(mine[begin : begin + at_once]), finer, name)


def _extended(search: _Search, shared: Sequence[int]) -> tuple[int, ...]:
    return extended(shared, _FINER, search.distinct.bits, search.radius, search.agree)


def _grouped(tables: Sequence[Table], leading: int) -> dict[Table, list[Table]]:
    """Tables by their leading blocks."""
    groups: dict[Table, list[Table]] = {}
    for table in tables:
        groups.setdefault(table[:leading], []).append(table)
    return groups


def _bundles(sizes: Rows, most: int) -> list[tuple[int, ...]]:
    """Buckets bundled so that each bundle has at most `most` rows, or is one bucket."""
    bundles: list[tuple[int, ...]] = [(0,)]
    rows = int(sizes[0])
    for bucket in range(1, len(sizes)):
        if rows + int(sizes[bucket]) > most:
            bundles.append(())
            rows = 0
        bundles[-1] = (*bundles[-1], bucket)
        rows += int(sizes[bucket])
    return bundles


def _cells(search: _Search, place: int) -> Exchange:
    return Exchange(os.path.join(search.folder, f"cells-{place}"), 1 << sum(search.shared))


def _sampled(distinct: Distinct) -> Words:
    """Every so many hashes."""
    step = max(1, len(distinct) // _SAMPLE)
    buckets = range(len(distinct.words.starts) - 1)
    return np.concatenate([distinct.hashes(bucket)[::step] for bucket in buckets])


def _hand_out(search: _Search, places: Sequence[Table], task: int, buckets: Sequence[int]) -> Any:
    """Hand the rows of some buckets to the cells of each group of tables; returns the rows of each, int64 [groups,
    cells]."""
    read = [search.distinct.read(bucket) for bucket in buckets]
    words, numbers, sizes = (np.concatenate([part[n] for part in read]) for n in range(3))
    columns = {f"word{n}": words[:, n] for n in range(words.shape[1])}
    table = pa.table({"number": numbers, "size": sizes, **columns})
    blocks = cut(words, search.radius, search.agree)
    counts = np.zeros((len(places), 1 << sum(search.shared)), dtype=np.int64)
    for place, leading in enumerate(places):
        cell = blocks.cell(leading, search.shared)
        _cells(search, place).write(task, table, cell)
        counts[place] = np.bincount(cell, minlength=counts.shape[1])
    return counts


def _search_piece(search: _Search, number: int, piece: _Piece) -> list[PairFile]:
    """Near pairs that the tables of a piece report, in files of its own."""
    files: list[PairFile] = []
    parts: list[Rows] = []
    rows = total = 0

    def leave() -> None:
        path = os.path.join(search.folder, f"found-{number:07d}-{len(files)}.bin")
        whole = np.concatenate(parts)
        whole.tofile(path)
        files.append(PairFile(path, len(whole), rows))
        parts.clear()

    for found, held in (part for cell in piece.cells for part in _search_cell(search, piece, cell)):
        parts.append(found)
        rows, total = rows + held, total + held
        if sum(map(len, parts)) >= _FILE_PAIRS or total > search.most:
            leave()
            if total > search.most:
                return files
            rows = 0
    if parts:
        leave()
    return files


def _search_cell(search: _Search, piece: _Piece, cell: int) -> Iterator[tuple[Rows, int]]:
    """Parts of (number, other number, distance) [n, 3], and how many pairs of rows each stands for."""
    words, numbers, sizes = _rows_of_cell(search, piece, cell)
    for row, other in _within(search, words, piece.tables, piece.finer or search.shared):
        count = int((sizes[row] * sizes[other]).sum())
        yield np.stack([numbers[row], numbers[other], distances(words[row], words[other])], axis=1), count


def _rows_of_cell(search: _Search, piece: _Piece, cell: int) -> tuple[Words, Rows, Rows]:
    """Words, numbers and sizes of a cell's rows, or of the part of it that the piece names."""
    table = _cells(search, piece.place).read(cell)
    names = [name for name in table.column_names if name.startswith("word")]
    read = []
    step = search.cell_rows if piece.finer else max(1, table.num_rows)
    for begin in range(0, table.num_rows, step):
        part = table.slice(begin, step)
        words = np.stack([part[name].to_numpy() for name in names], axis=1)
        held = words, part["number"].to_numpy(), part["size"].to_numpy().astype(np.int64)
        if piece.finer:
            blocks = cut(words, search.radius, search.agree)
            mine = blocks.cell(piece.tables[0][: len(piece.finer)], piece.finer) == piece.part
            held = words[mine], held[1][mine], held[2][mine]
        read.append(held)
    words, numbers, sizes = (np.concatenate([part[n] for part in read]) for n in range(3))
    return words, numbers, sizes


def _within(
    search: _Search, words: Words, tables: Sequence[Table], shared: tuple[int, ...]
) -> Iterator[tuple[Rows, Rows]]:
    """Near pairs of a cell's rows; one of far too many rows is divided further, part after part."""
    blocks = cut(words, search.radius, search.agree)
    finer = _extended(search, shared) if len(words) > 4 * search.cell_rows else shared
    if finer == shared:
        yield from near_within(blocks, tables, search.radius, shared)
        return
    for leading, mine in _grouped(tables, len(finer)).items():
        name = blocks.cell(leading, finer)
        order = np.argsort(name, kind="stable")
        starts = np.flatnonzero(np.concatenate([[True], np.diff(name[order]) != 0]))
        for begin, end in zip(starts, [*starts[1:], len(order)], strict=True):
            part = order[begin:end]
            for row, other in _within(search, words[part], mine, finer):
                yield part[row], part[other]
