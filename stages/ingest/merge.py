"""Merging what the partitions read into the pairs files, in bounded memory.

Every partition leaves its rows sorted by image. Here they stream side by side: the range of image uids is cut into
steps of about a million rows, each of which is taken from all parts, sorted, freed of repeats and written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stages.sample import pairs_schema

_STEP_ROWS = 1_000_000
_END = "g"  # greater than any hex digit
#: Fixed, so that equal tables are equal bytes.
WRITER = {"compression": "zstd", "use_dictionary": ["source", "license"], "row_group_size": 16_384}


def part_schema() -> pa.Schema:
    """Schema of a part: a pair, and where it was listed (`unit`, `row`), which decides among repeats."""
    return pairs_schema().append(pa.field("unit", pa.int64())).append(pa.field("row", pa.int64()))


def write_part(table: pa.Table, path: Path) -> None:
    """Write one partition's rows, sorted for :func:`merged`."""
    order = [("image_uid", "ascending"), ("uid", "ascending"), ("row", "ascending")]
    pq.write_table(table.sort_by(order), path, **WRITER)


class _Part:
    """A sorted part that is read forwards once."""

    def __init__(self, path: Path) -> None:
        self._batches = pq.ParquetFile(path).iter_batches(batch_size=8192)
        self._held: pa.Table = part_schema().empty_table()

    def below(self, bound: str) -> pa.Table:
        """The next rows, up to image uid `bound`."""
        taken = []
        while True:
            uids = self._held["image_uid"]
            count = pc.sum(pc.less(uids, bound)).as_py() or 0
            taken.append(self._held.slice(0, count))
            self._held = self._held.slice(count)
            if self._held.num_rows:
                break
            batch = next(self._batches, None)
            if batch is None:
                break
            self._held = pa.Table.from_batches([batch]).cast(part_schema())
        return pa.concat_tables(taken)


def merged(parts: Sequence[Path]) -> Iterator[tuple[pa.Table, int]]:
    """Tables of distinct pairs in order of (image uid, uid), and how many repeats each was freed of.

    All pairs of an image are in the same table. Of a pair listed more than once the first listing is kept.
    """
    rows = sum(pq.read_metadata(part).num_rows for part in parts)
    steps = max(1, -(-rows // _STEP_ROWS))
    bounds = [f"{step * 16**8 // steps:08x}" for step in range(1, steps)] + [_END]
    streams = [_Part(part) for part in parts]
    order = [(name, "ascending") for name in ("image_uid", "uid", "unit", "row")]
    for bound in bounds:
        table = pa.concat_tables([part_schema().empty_table(), *(stream.below(bound) for stream in streams)])
        table = table.sort_by(order)
        first = _starts(table["uid"])
        yield table.take(pa.array(first)).drop_columns(["unit", "row"]), table.num_rows - len(first)


def write_pairs(tables: Iterator[tuple[pa.Table, int]], out: Path, pairs_per_file: int) -> dict[str, int]:
    """Write `pairs-NNNNN.parquet`, each closed at the first image after `pairs_per_file` rows; returns the counts.

    There is always at least one file, so that an empty source is an empty table and not a missing one.
    """
    counts = {"pairs": 0, "images": 0, "repeats": 0}
    pending = pairs_schema().empty_table()
    files = 0

    def write(table: pa.Table) -> None:
        nonlocal files
        pq.write_table(table.combine_chunks(), out / f"pairs-{files:05d}.parquet", **WRITER)
        files += 1

    for table, repeats in tables:
        counts["pairs"] += table.num_rows
        counts["images"] += len(_starts(table["image_uid"]))
        counts["repeats"] += repeats
        pending = pa.concat_tables([pending, table])
        starts = _starts(pending["image_uid"])
        done = 0
        for start in starts:
            if start - done >= pairs_per_file:
                write(pending.slice(done, start - done))
                done = int(start)
        pending = pending.slice(done)
    if pending.num_rows or not files:
        write(pending)
    return counts


def _starts(column: pa.ChunkedArray) -> np.ndarray:
    """Indices at which a sorted column takes a new value."""
    if not len(column):
        return np.zeros(0, dtype=np.int64)
    changed = pc.not_equal(column.slice(1), column.slice(0, len(column) - 1)).to_numpy()
    return np.concatenate([[0], np.flatnonzero(changed) + 1]).astype(np.int64)
