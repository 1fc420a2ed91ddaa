"""Merging what the partitions read into the pairs files, in bounded memory.

Every partition leaves its rows sorted by image. Here they stream side by side: the range of image uids is cut into
steps of about a million rows, each of which is taken from all parts, sorted, deduplicated and written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stages.base.pairs import pairs_schema

_STEP_ROWS = 1_000_000
_END = "g"  # greater than any hex digit
_FAN_IN = 64
_Order = list[tuple[str, str]]
_PAIR_ORDER: _Order = [(name, "ascending") for name in ("image_uid", "uid", "unit", "row")]
_DIGEST_ORDER: _Order = [(name, "ascending") for name in ("image_uid", "unit", "row")]
#: Fixed, so that equal tables are equal bytes.
WRITER: dict[str, Any] = {"compression": "zstd", "use_dictionary": ["source", "license"], "row_group_size": 16_384}


def part_schema() -> pa.Schema:
    """Schema of a part: a pair, and where it was listed (`unit`, `row`), which decides among repeats."""
    return pairs_schema().append(pa.field("unit", pa.int64())).append(pa.field("row", pa.int64()))


def write_part(table: pa.Table, path: Path) -> None:
    """Write one partition's rows, sorted for :func:`merged`."""
    order = [("image_uid", "ascending"), ("uid", "ascending"), ("row", "ascending")]
    pq.write_table(table.sort_by(order), path, **WRITER)


def digests_schema() -> pa.Schema:
    """Schema of a part of listed digests: what they say (`facts`: members of a JSON object), and where."""
    text, number = pa.string(), pa.int64()
    return pa.schema([("image_uid", text), ("facts", text), ("unit", number), ("row", number)])


def write_digests(table: pa.Table, path: Path) -> None:
    """Write one partition's digests, sorted for :func:`merged`."""
    pq.write_table(table.sort_by([("image_uid", "ascending"), ("row", "ascending")]), path, compression="zstd")


class _Part:
    """A sorted part that is read forwards once."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._batches = pq.ParquetFile(path).iter_batches(batch_size=8192)
        self._schema = schema
        self._held: pa.Table = schema.empty_table()

    def below(self, bound: str) -> pa.Table:
        """The next rows, up to image uid `bound`."""
        slices = []
        while True:
            uids = self._held["image_uid"]
            count = pc.sum(pc.less(uids, bound)).as_py() or 0
            slices.append(self._held.slice(0, count))
            self._held = self._held.slice(count)
            if self._held.num_rows:
                break
            batch = next(self._batches, None)
            if batch is None:
                break
            self._held = pa.Table.from_batches([batch]).cast(self._schema)
        return pa.concat_tables(slices)


def merged(parts: Sequence[Path], digests: Sequence[Path], scratch: Path) -> Iterator[tuple[pa.Table, int]]:
    """Tables of distinct pairs in order of (image uid, uid), and the number of repeats dropped from each.

    All pairs of an image are in the same table. Of a pair listed more than once the first listing is kept. `digests`
    are parts of :func:`digests_schema`; what they say of an image is added to the `meta` of its pairs. Many parts are
    first merged into fewer, in the folder `scratch`.
    """
    parts = _fewer(parts, part_schema(), _PAIR_ORDER, scratch)
    digests = _fewer(digests, digests_schema(), _DIGEST_ORDER, scratch)
    bounds = _bounds([*parts, *digests])
    facts = _tables(digests, digests_schema(), _DIGEST_ORDER, bounds)
    for table in _tables(parts, part_schema(), _PAIR_ORDER, bounds):
        first = _starts(table["uid"])
        distinct = table.take(pa.array(first)).drop_columns(["unit", "row"])
        stated = next(facts)
        if digests:
            distinct = _joined(distinct, stated.take(pa.array(_starts(stated["image_uid"]))))
        yield distinct, table.num_rows - len(first)


def _bounds(parts: Sequence[Path]) -> list[str]:
    """Image uids that cut the parts into steps of about a million rows."""
    rows = sum(pq.read_metadata(part).num_rows for part in parts)
    steps = max(1, -(-rows // _STEP_ROWS))
    return [f"{step * 16**8 // steps:08x}" for step in range(1, steps)] + [_END]


def _tables(parts: Sequence[Path], schema: pa.Schema, order: _Order, bounds: Sequence[str]) -> Iterator[pa.Table]:
    """Sorted tables of all parts, one per step."""
    streams = [_Part(part, schema) for part in parts]
    for bound in bounds:
        yield pa.concat_tables([schema.empty_table(), *(stream.below(bound) for stream in streams)]).sort_by(order)


def _fewer(parts: Sequence[Path], schema: pa.Schema, order: _Order, scratch: Path) -> Sequence[Path]:
    """At most :data:`_FAN_IN` parts with the same rows: each one read side by side costs memory and an open file."""
    while len(parts) > _FAN_IN:
        runs = []
        for start in range(0, len(parts), _FAN_IN):
            group = parts[start : start + _FAN_IN]
            runs.append(scratch / f"{group[0].stem}-{len(parts)}.parquet")
            with pq.ParquetWriter(runs[-1], schema, compression="zstd", use_dictionary=["source", "license"]) as writer:
                for table in _tables(group, schema, order, _bounds(group)):
                    writer.write_table(table, row_group_size=WRITER["row_group_size"])
            for spent in group:
                if spent.parent == scratch:
                    spent.unlink()
        parts = runs
    return parts


def _joined(pairs: pa.Table, facts: pa.Table) -> pa.Table:
    """Pairs with the facts of their images as further members of `meta`."""
    facts_of_pairs = facts["facts"].take(pc.index_in(pairs["image_uid"], value_set=facts["image_uid"]))
    old = pc.utf8_slice_codeunits(pairs["meta"], 0, -1)  # without the closing brace
    comma = pc.if_else(pc.equal(old, "{"), "", ",")
    new = pc.binary_join_element_wise(old, comma, facts_of_pairs, "}", "")
    position = pairs.schema.get_field_index("meta")
    return pairs.set_column(position, pairs.schema.field("meta"), pc.coalesce(new, pairs["meta"]))


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
