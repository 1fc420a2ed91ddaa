"""Finds images and captions that occur in a benchmark, from the index's matches and the bounds of the selection."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from stages.index.reader import Index
from stages.select.config import Contamination
from stages.select.duplicates import confirmed

#: Kinds of image matches, by number.
KINDS = ("exact", "near")


@dataclass(frozen=True)
class Leak:
    """The training images that one benchmark contains."""

    benchmark: str
    match: NDArray[np.int64]
    """Per row of the index's images, its row in the columns below, or -1."""
    file: pa.Array
    """The benchmark's image: one with equal pixels, or else the nearest."""
    kind: NDArray[np.int8]
    """Index into :data:`KINDS`."""
    distance: NDArray[np.int16]
    """Bits of perceptual hash, 0 for equal pixels."""


def leaked_images(index: Index, rule: Contamination) -> Iterator[Leak]:
    """Leaks by benchmark, in alphabetical order."""
    group = index.images["group"].to_numpy()
    labels = {0: group}
    tables = []
    if rule.exact:
        tables.append(_match_table(index.benchmark_exact, 0, group))
    if rule.near is not None:
        near = index.benchmark_near(rule.near.hash)
        labels[1] = index.classes(rule.near.hash)
        tables.append(_match_table(near.filter(pa.array(confirmed(near, rule.near))), 1, labels[1]))
    if not tables:
        return
    rows = pa.concat_tables(tables)
    for name in sorted(pc.unique(rows["benchmark"]).to_pylist()):
        mine = rows.filter(pc.equal(rows["benchmark"], name))
        # Among several of the benchmark's images, prefer the exact one, then the nearest, then the first by name.
        mine = mine.sort_by([(key, "ascending") for key in ("label", "kind", "distance", "file")]).combine_chunks()
        label, kind = mine["label"].to_numpy(), mine["kind"].to_numpy()
        match = np.full(len(group), -1, dtype=np.int64)
        for number in sorted(labels, reverse=True):  # so that an exact match replaces a near one
            ours = np.flatnonzero(kind == number)[::-1]
            first = np.full(len(group) + 1, -1, dtype=np.int64)  # the last element is for images without a label
            first[label[ours]] = ours  # the last write wins: the first of its label
            match = np.where(first[labels[number]] >= 0, first[labels[number]], match)
        yield Leak(name, match, mine["file"].combine_chunks(), kind, mine["distance"].to_numpy())


def _match_table(table: pa.Table, kind: int, labels: NDArray[np.int32]) -> pa.Table:
    rows = table.num_rows
    zero = pa.array(np.zeros(rows, dtype=np.int16))
    return pa.table(
        {
            "label": pa.array(labels[table["image"].to_numpy()], pa.int32()),
            "benchmark": table["benchmark"].cast(pa.string()),
            "file": table["file"],
            "kind": pa.array(np.full(rows, kind, dtype=np.int8)),
            "distance": table["distance"] if "distance" in table.column_names else zero,
        }
    )


def leaked_texts(index: Index, min_overlap: float) -> Iterator[tuple[str, NDArray[np.int64], NDArray[np.float32]]]:
    """(benchmark, rows of pairs, overlap of each) in alphabetical order, where the overlap reaches the threshold."""
    matches = index.benchmark_texts
    matches = matches.filter(pc.greater_equal(matches["overlap"], pa.scalar(min_overlap, pa.float32())))
    matches = matches.set_column(1, "benchmark", matches["benchmark"].cast(pa.string()))
    for name in sorted(pc.unique(matches["benchmark"]).to_pylist()):
        mine = matches.filter(pc.equal(matches["benchmark"], name))
        yield name, mine["pair"].to_numpy().astype(np.int64), mine["overlap"].to_numpy()
