"""Rows of images as other tables name them, after some are lost: who leads its group or class now, and at which row."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stages.index.columns import Rows
from stages.index.config import Hash
from stages.index.reader import Index
from stages.index.schema import NEAR, file_of
from stages.index.tables import write


@dataclass
class Renumbered:
    """The leaders that a column of images names (`group`, `class_<hash>`), before and after. Holds what concerns sets
    with a lost member, and no column of all rows."""

    index: Index
    column: str
    lost: Rows
    """Global rows that are lost, ascending."""
    concerned: Rows
    """Old leaders of the sets that change, ascending."""
    first: Rows
    """Per set concerned its first row that is left, or -1."""
    size: Rows
    """Rows that are left of it."""
    edged: Rows = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    """Of the sets concerned those that still have an edge."""

    @staticmethod
    def of(index: Index, column: str, lost: Rows) -> Renumbered:
        """The sets of which some `lost` rows are members."""
        concerned = np.empty(0, dtype=np.int64)
        for it in index.ranges:
            begin, end = np.searchsorted(lost, [it.first_image, it.first_image + it.images])
            label = index.images(it.number)[column].to_numpy()[lost[begin:end] - it.first_image]
            concerned = np.union1d(concerned, label[label >= 0])
        none = np.full(len(concerned), -1, dtype=np.int64)
        made = Renumbered(index, column, lost, concerned, none, np.zeros_like(none))
        made._count()
        return made

    @property
    def vanished(self) -> int:
        """Sets of which nothing is left."""
        return int((self.size == 0).sum())

    def _count(self) -> None:
        """What is left of the sets concerned."""
        self.first[:], self.size[:] = -1, 0
        for it in self.index.ranges:
            label = self.index.images(it.number)[self.column].to_numpy()
            place = self._place(label)
            begin, end = np.searchsorted(self.lost, [it.first_image, it.first_image + it.images])
            place[self.lost[begin:end] - it.first_image] = -1
            rows = np.flatnonzero(place >= 0)
            np.add.at(self.size, place[rows], 1)
            sets, at = np.unique(place[rows], return_index=True)
            new = self.first[sets] < 0
            self.first[sets[new]] = rows[at[new]] + it.first_image

    def _place(self, leaders: Rows) -> Rows:
        """Place among the sets concerned, or -1."""
        if not len(self.concerned):
            return np.full(len(leaders), -1, dtype=np.int64)
        place = np.minimum(np.searchsorted(self.concerned, leaders), len(self.concerned) - 1)
        return np.where(self.concerned[place] == leaders, place, -1)

    def standing(self, leaders: Rows) -> Rows:
        """Who leads now, by old rows: -1 for a set that vanished, and for -1."""
        place = self._place(leaders)
        return np.where(place >= 0, self.first[place] if len(self.first) else -1, leaders)

    def rows(self, leaders: Rows) -> Rows:
        """Who leads now, by new rows; -1 as in :meth:`standing`."""
        old = self.standing(leaders)
        return np.where(old >= 0, old - np.searchsorted(self.lost, old), -1)

    def others(self, leaders: Rows, before: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Whether a set has another row left; `before` is what is known of the sets that are not concerned."""
        place = self._place(leaders)
        return np.where(place >= 0, self.size[place] > 1 if len(self.size) else False, before)

    def touched(self, leaders: Rows) -> NDArray[np.bool_]:
        """Whether a set concerned has an edge left."""
        return np.isin(leaders, self.edged)

    def write_edges(self, hash: Hash | str, out: Path) -> int:
        """Write the edges that are left, each in the range of its first; returns the change of their number.

        Sets that lose an edge are concerned from then on.
        """
        ends_lost, moved, change = [np.empty(0, dtype=np.int64)], [NEAR.empty_table()], 0
        for it in self.index.ranges:
            edges = self._edges(hash, it.number)
            first, second = (self.standing(edges[name].to_numpy()) for name in ("first", "second"))
            gone = (first < 0) | (second < 0)
            ends_lost += [edges[name].to_numpy()[gone] for name in ("first", "second")]
            leaves = ~gone & (self.index.range_of(np.minimum(first, second)) != it.number)
            moved.append(self._renamed(edges, leaves, first, second))
            change -= int(gone.sum())
        concerned, ends = self.concerned, np.unique(np.concatenate(ends_lost))
        wanderers = pa.concat_tables(moved)
        goes_to = self.index.range_of(wanderers["first"].to_numpy())
        more = np.union1d(concerned, ends)
        touched = [np.empty(0, dtype=np.int64)]
        for it in self.index.ranges:
            edges = self._edges(hash, it.number)
            first, second = (self.standing(edges[name].to_numpy()) for name in ("first", "second"))
            left = (first >= 0) & (second >= 0)
            touched += [np.intersect1d(edges[name].to_numpy()[left], more) for name in ("first", "second")]
            stay = left & (self.index.range_of(np.minimum(first, second)) == it.number)
            arrived = wanderers.filter(pa.array(goes_to == it.number))
            self._write(pa.concat_tables([self._renamed(edges, stay, first, second), arrived]), hash, it.number, out)
        self.concerned = more
        self.first, self.size = np.full(len(more), -1, dtype=np.int64), np.zeros(len(more), dtype=np.int64)
        self.edged = np.unique(np.concatenate(touched))
        self._count()
        return change

    def _edges(self, hash: Hash | str, number: int) -> pa.Table:
        return self.index.near(hash, number)  # type: ignore[arg-type]

    @staticmethod
    def _renamed(edges: pa.Table, which: NDArray[np.bool_], first: Rows, second: Rows) -> pa.Table:
        """Some edges between those who lead now, by old rows."""
        first, second = first[which], second[which]
        kept = edges.filter(pa.array(which))
        ends = [pa.array(np.minimum(first, second)), pa.array(np.maximum(first, second))]
        return pa.table([*ends, *kept.columns[2:]], schema=NEAR)

    def _write(self, edges: pa.Table, hash: Hash | str, number: int, out: Path) -> None:
        order = np.lexsort((edges["second"].to_numpy(), edges["first"].to_numpy()))
        edges = edges.take(pa.array(order))
        new = [pa.array(rows - np.searchsorted(self.lost, rows)) for rows in _ends(edges)]
        write(pa.table([*new, *edges.columns[2:]], schema=NEAR).combine_chunks(), out / file_of(f"near-{hash}", number))


def _ends(edges: pa.Table) -> list[Rows]:
    return [edges[name].to_numpy() for name in ("first", "second")]
