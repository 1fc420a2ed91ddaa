"""Which pictures are near one another by one hash: their classes, and the edges between these, over all ranges."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray

from stages.base.exchange import Exchange
from stages.base.tasks import Tasks
from stages.imaging.perceptual_hash import BITS
from stages.index import equal
from stages.index.cells import CELL_ROWS, Distinct, PairFile, search
from stages.index.columns import Column, Rows, first_of, starts_of
from stages.index.config import Hash
from stages.index.hamming import Words
from stages.index.likeness import differences, first_positions
from stages.index.matches import STEP, refuse_crowds
from stages.index.schema import NEAR
from stages.index.work import IndexWork

_PAIRS = 1_000_000  # pairs whose thumbnails one task compares
_ROWS = 1 << 16  # thumbnails that are digested at a time


@dataclass(frozen=True)
class NearCopies:
    """The search by one hash: its passes over ranges and buckets, and what they leave."""

    work: IndexWork
    hash: Hash

    def send(self, number: int, words: Words, rows: Rows) -> None:
        """Range by range: send the signatures of the pictures that lead their group: these global rows, with hashes
        [rows, bits / 64]."""
        thumbnails, start = self.work.thumbnails.of(number), self.work.ranges[number].first_image
        digests = [
            _digests(thumbnails[rows[begin : begin + _ROWS] - start], self.hash) for begin in range(0, len(rows), _ROWS)
        ]
        hashes = np.ascontiguousarray(words).view(np.uint8)
        signatures = np.concatenate([hashes, np.concatenate([np.empty((0, 16), np.uint8), *digests])], axis=1)
        self._leads.write(number, rows)
        first = equal.send_firsts(self._signatures, number, signatures, rows, equal.spread(words))
        self._column("first").write(number, first)

    def settle(self, bucket: int) -> tuple[int, int, PairFile]:
        """Bucket by bucket: tell classes from one another, and hashes.

        Returns the number of classes and of hashes, and the pairs of classes with equal hashes.
        """
        signatures, rows = equal.received(self._signatures, bucket)
        first = first_of(signatures)
        equal.answer(self._answers, bucket, rows, first, self.work.thumbnails.range_of(rows))
        leads = np.flatnonzero(first == np.arange(len(first)))
        hashes = np.ascontiguousarray(signatures[leads, :-16])
        group = first_of(hashes)
        order = np.argsort(group, kind="stable")
        place = np.flatnonzero(np.concatenate([[True], np.diff(group[order]) != 0])) if len(order) else order
        sizes = np.zeros(len(order), dtype=np.int32)
        sizes[place] = np.diff(np.append(place, len(order)))
        empty = np.zeros(0, np.int64)
        self._members(empty).write(bucket, rows[leads[order]])
        self._sizes(empty).write(bucket, sizes)
        self._places(empty).write(bucket, place)
        self._words(empty).write(bucket, hashes[order[place]].view(np.uint64))
        own = place[sizes[place] > 1]
        with open(file := os.path.join(self._folder, f"own-{bucket:05d}.bin"), "wb") as out:
            np.stack([own, own, np.zeros_like(own)], axis=1).tofile(out)
        many = sizes[own].astype(np.int64)
        return len(order), len(place), PairFile(file, len(own), int((many * (many - 1) // 2).sum()))

    def classes_of_leads(self, number: int) -> tuple[Rows, Rows, NDArray[np.bool_]]:
        """Pictures of a range that lead their group (global rows), the class of each, and whether it has others."""
        rows = np.asarray(self._leads.of(number))
        leader, among = equal.leaders(self._answers, number, np.asarray(self._column("first").of(number)), rows)
        return rows, leader, among

    def reply(self, number: int) -> None:
        """Range by range: tell other ranges the classes of pictures that lead groups with members there."""
        rows, leader, among = self.classes_of_leads(number)
        asked = self.work.exchange("asked").read(number)
        place = np.searchsorted(rows, asked["leader"].to_numpy())
        told = {"leader": asked["leader"], "class": leader[place], "among": among[place]}
        self._exchange("told").write(number, pa.table(told), asked["from"].to_numpy())

    def classes(self, number: int, group: Rows) -> tuple[Rows, NDArray[np.bool_]]:
        """Class of each image of a range by its group, -1 where it has none; and whether the class has other groups."""
        rows, leader, among = self.classes_of_leads(number)
        told = self._exchange("told").read(number)
        rows = np.concatenate([rows, told["leader"].to_numpy()])
        leader = np.concatenate([leader, told["class"].to_numpy()])
        among = np.concatenate([among, told["among"].combine_chunks().to_numpy(zero_copy_only=False).astype(bool)])
        order = np.argsort(rows)
        there = np.flatnonzero(group >= 0)
        place = order[np.searchsorted(rows[order], group[there])]
        column, others = np.full(len(group), -1, dtype=np.int64), np.zeros(len(group), dtype=bool)
        column[there], others[there] = leader[place], among[place]
        return column, others

    def edges(self, number: int) -> pa.Table:
        """The near classes whose first lies in a range, sorted."""
        table = self._exchange("edges").read(number)
        order = np.lexsort((table["second"].to_numpy(), table["first"].to_numpy()))
        return table.take(pa.array(order)).combine_chunks()

    def seconds(self, number: int) -> Rows:
        """Classes of a range that are the second of an edge."""
        return self._exchange("seconds").read(number)["row"].to_numpy()

    def search(
        self,
        tasks: Tasks,
        settled: Sequence[tuple[int, int, PairFile]],
        radius: int,
        most: int,
        cell_rows: int = CELL_ROWS,
    ) -> None:
        """Find and compare all near classes. `settled` is what :meth:`settle` returned for each bucket.

        Raises UserError for more than `most` pairs.
        """
        members = starts_of(classes for classes, _, _ in settled)
        hashes = starts_of(count for _, count, _ in settled)
        distinct = Distinct(BITS[self.hash], self._words(hashes), self._places(hashes), members, self._sizes(hashes))
        self._edges_in_task(0, [NEAR.empty_table()])
        found, count = [], 0
        own = [
            PairFile(it.file, it.pairs, it.rows, int(start))
            for (_, _, it), start in zip(settled, members, strict=False)
        ]
        for it in (*own, *search(tasks, self._folder, distinct, radius, most, cell_rows)):
            count += it.rows
            refuse_crowds(count, most)
            if it.pairs:
                found.append(it)
        told = tasks.share((self, members))
        calls = ((told, task, work) for task, work in enumerate(_shares(found), 1))
        for _ in tasks.map(_compare, calls):
            pass

    def compare(self, members: Rows, task: int, work: Sequence[tuple[PairFile, int, int]]) -> None:
        """Compare the thumbnails of some pairs, and send the edges to the ranges of both ends."""
        parts = (part for found, begin, end in work for part in self._compared(members, found, begin, end))
        self._edges_in_task(task, parts)

    def _compared(self, members: Rows, found: PairFile, begin: int, end: int) -> Iterator[pa.Table]:
        pairs = np.fromfile(found.file, dtype=np.int64).reshape(-1, 3)
        one, other = pairs[:, 0] + found.start, pairs[:, 1] + found.start
        rows, sizes = self._members(members), self._sizes(members)
        size = sizes.take(other).astype(np.int64)
        each = np.where(one == other, size * (size - 1) // 2, sizes.take(one) * size)
        ends = np.cumsum(each)
        for low in range(begin, end, STEP):
            flat = np.arange(low, min(low + STEP, end))
            pair = np.searchsorted(ends, flat, side="right")
            left, right = _places(flat - (ends[pair] - each[pair]), size[pair], one[pair] == other[pair])
            a, b = rows.take(one[pair] + left), rows.take(other[pair] + right)
            first, second = np.minimum(a, b), np.maximum(a, b)
            thumbnails = self.work.thumbnails
            columns = differences(thumbnails.take(first), thumbnails.take(second), self.hash == "phash_d4")
            yield pa.table([first, second, pairs[pair, 2].astype(np.int16), *columns], schema=NEAR)

    def _edges_in_task(self, task: int, parts: Any) -> None:
        range_of = self.work.thumbnails.range_of
        for number, part in enumerate(parts):
            name = task * 1_000_000 + number
            self._exchange("edges").write(name, part, range_of(part["first"].to_numpy()))
            seconds = np.unique(part["second"].to_numpy())
            self._exchange("seconds").write(name, pa.table({"row": seconds}), range_of(seconds))

    @property
    def _folder(self) -> str:
        return os.path.join(self.work.folder, self.hash)

    def _exchange(self, name: str) -> Exchange:
        return self.work.exchange(os.path.join(self.hash, name))

    @property
    def _signatures(self) -> Exchange:
        return self._exchange("signatures")

    @property
    def _answers(self) -> Exchange:
        return self._exchange("answers")

    def _column(self, name: str, dtype: str = "int64", width: int = 1, starts: Rows | None = None) -> Column:
        return self.work.column(os.path.join(self.hash, name), dtype, width, starts)

    @property
    def _leads(self) -> Column:
        return self._column("leads")

    # By bucket: the classes, those of one hash together, each by its row; and the hashes, by place among the classes.

    def _members(self, starts: Rows) -> Column:
        return self._column("members", "int64", 1, starts)

    def _sizes(self, starts: Rows) -> Column:
        return self._column("sizes", "int32", 1, starts)

    def _places(self, starts: Rows) -> Column:
        return self._column("places", "int64", 1, starts)

    def _words(self, starts: Rows) -> Column:
        return self._column("hashes", "uint64", BITS[self.hash] // 64, starts)


def _digests(thumbnails: NDArray[np.uint8], hash: Hash) -> NDArray[np.uint8]:
    """128 bits of each thumbnail [n, 192], uint8 [n, 16]: equal where pictures of equal hash are of one class."""
    whole = first_positions(thumbnails) if hash == "phash_d4" else np.ascontiguousarray(thumbnails)
    return np.frombuffer(b"".join(xxhash.xxh3_128_digest(row) for row in whole), dtype=np.uint8).reshape(-1, 16)


def _compare(told: tuple[NearCopies, Rows], task: int, work: Sequence[tuple[PairFile, int, int]]) -> None:
    told[0].compare(told[1], task, work)


def _shares(found: Sequence[PairFile]) -> Iterator[list[tuple[PairFile, int, int]]]:
    """Pairs of rows in files, by number: together as many as one task compares."""
    share: list[tuple[PairFile, int, int]] = []
    room = _PAIRS
    for it in found:
        begin = 0
        while begin < it.rows:
            end = min(it.rows, begin + room)
            share.append((it, begin, end))
            room -= end - begin
            begin = end
            if not room:
                yield share
                share, room = [], _PAIRS
    if share:
        yield share


def _places(flat: Rows, size: Rows, same: NDArray[np.bool_]) -> tuple[Rows, Rows]:
    """Pair number `flat` of all between two sets, the second of `size`; or, where they are the same, of its pairs."""
    left, right = np.divmod(flat, size)
    # Number k of the pairs (a, b) with a < b, in order of b: b is the largest with b (b - 1) / 2 <= k.
    later = ((1 + np.sqrt(1 + 8 * flat.astype(np.float64))) / 2).astype(np.int64)
    later -= later * (later - 1) // 2 > flat
    later += (later + 1) * later // 2 <= flat
    return np.where(same, flat - later * (later - 1) // 2, left), np.where(same, later, right)
