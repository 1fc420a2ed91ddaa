"""Merging what the partitions read into the pairs files: tasks over ranges of image uids, each of bounded memory.

Every partition leaves its rows sorted by image. The range of image uids is cut into steps of at most 300,000
rows. A task takes a step's rows from all parts, sorts them and drops repeats; where the files begin follows
from the rows that each image has in every step, and another task writes the files that begin in a step.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stages.base.pairs import pairs_schema
from stages.base.tasks import Tasks, done, tasks_for

#: Most rows of a step, and most bytes before compression: uids are hashes, so both are spread evenly.
_STEP_ROWS = 300_000
_STEP_BYTES = 1 << 28
_END = "g"  # greater than any hex digit
#: Most parts that a step is taken from. More are first merged in groups of so many: of too many parts, a step needs a
#: few rows each and reads a whole row group for them.
_FAN_IN = 128
#: Rows of a row group of a part, and of a group of parts: what is read of it at least for a step.
_PART_GROUP = 4_096
_RUN_GROUP = 8_192
_Order = list[tuple[str, str]]
_PAIR_ORDER: _Order = [(name, "ascending") for name in ("image_uid", "uid", "unit", "row")]
_DIGEST_ORDER: _Order = [(name, "ascending") for name in ("image_uid", "unit", "row")]
#: Fixed, so that equal tables are equal bytes.
WRITER: dict[str, Any] = {"compression": "zstd", "use_dictionary": ["source", "license"], "row_group_size": 16_384}


def part_schema() -> pa.Schema:
    """Schema of a part: a pair, and where it was listed (`unit`, `row`), which decides among repeats."""
    return pairs_schema().append(pa.field("unit", pa.int64())).append(pa.field("row", pa.int64()))


def write_part(table: pa.Table, path: Path) -> None:
    """Write one partition's rows, sorted for :func:`merge`."""
    order = [("image_uid", "ascending"), ("uid", "ascending"), ("row", "ascending")]
    pq.write_table(table.sort_by(order), path, **{**WRITER, "row_group_size": _PART_GROUP})


def digests_schema() -> pa.Schema:
    """Schema of a part of listed digests: what they say (`facts`: members of a JSON object), and where."""
    text, number = pa.string(), pa.int64()
    return pa.schema([("image_uid", text), ("facts", text), ("unit", number), ("row", number)])


def write_digests(table: pa.Table, path: Path) -> None:
    """Write one partition's digests, sorted for :func:`merge`."""
    order = [("image_uid", "ascending"), ("row", "ascending")]
    pq.write_table(table.sort_by(order), path, compression="zstd", row_group_size=_PART_GROUP)


@dataclass(frozen=True)
class _Kind:
    """What is merged: pairs or digests."""

    schema: pa.Schema
    order: _Order


_PAIRS = _Kind(part_schema(), _PAIR_ORDER)
_DIGESTS = _Kind(digests_schema(), _DIGEST_ORDER)


def merge(
    parts: Sequence[Path], digests: Sequence[Path], folder: Path, out: Path, pairs_per_file: int
) -> dict[str, int]:
    """Write `pairs-NNNNN.parquet` in order of (image uid, uid); returns the counts of pairs, images and repeats.

    A file ends before the first image that begins `pairs_per_file` rows or more after its start, so all pairs of an
    image are in the same file. Of a pair listed more than once the first listing is kept. `digests` are parts of
    :func:`digests_schema`; what they say of an image is added to the `meta` of its pairs. There is always at least one
    file, so that an empty source is an empty table and not a missing one.

    `parts`, `digests`, `folder` (empty; for what tasks hand to one another) and `out` are seen by all workers.
    """
    pairs, facts = (_fewer(files, kind, folder) for files, kind in ((parts, _PAIRS), (digests, _DIGESTS)))
    bounds = _bounds([*pairs, *facts])
    steps = [(folder / f"step-{number:05d}.arrow", *ends) for number, ends in enumerate(pairwise(bounds))]
    tasks: Tasks = tasks_for(len(steps))
    counts = {"pairs": 0, "images": 0, "repeats": 0}
    files: list[list[int]] = []  # by step: the rows at which files begin
    rows: list[int] = []  # by step
    since = 0  # rows since the last file's start
    calls = ((pairs, facts, low, high, path) for path, low, high in steps)
    for of_image, repeats in tasks.map(_merge_step, calls):
        total = int(of_image.sum())
        begun, since = _file_starts(of_image, since, pairs_per_file)
        files.append(begun if rows else [0, *begun])
        rows.append(total)
        counts["pairs"] += total
        counts["images"] += len(of_image)
        counts["repeats"] += repeats
    done(tasks.map(_write_files, _file_calls(files, rows, [path for path, _, _ in steps], out)))
    return counts


def _file_starts(of_image: np.ndarray, since: int, pairs_per_file: int) -> tuple[list[int], int]:
    """The rows of a step at which files begin, and the rows from the last file's start to the end of the step.

    `of_image` int32 [images]: rows of each image; `since`: rows from the last file's start to the step's first row.
    """
    ends = np.cumsum(of_image, dtype=np.int64)
    starts = ends - of_image
    begun: list[int] = []
    last = -since
    while (image := int(np.searchsorted(starts, last + pairs_per_file))) < len(starts):
        last = int(starts[image])
        begun.append(last)
    return begun, (int(ends[-1]) if len(ends) else 0) - last


def _file_calls(
    files: Sequence[Sequence[int]], rows: Sequence[int], steps: Sequence[Path], out: Path
) -> Iterator[tuple[list[tuple[Path, int, int]], list[int], int, Path]]:
    """Calls of :func:`_write_files`, one for each step in which files begin."""
    first = 0
    for step, begun in enumerate(files):
        if not begun:
            continue
        pieces = [(steps[step], begun[0], rows[step])]
        for later in range(step + 1, len(files)):  # the last file goes on until the next one begins
            stop = files[later][0] if files[later] else rows[later]
            if stop:
                pieces.append((steps[later], 0, stop))
            if files[later]:
                break
        yield pieces, [start - begun[0] for start in begun], first, out
        first += len(begun)


def _write_files(pieces: Sequence[tuple[Path, int, int]], starts: Sequence[int], first: int, out: Path) -> None:
    """Write the files that begin in one step, from number `first`; `pieces` are (step's file, from row, to row)."""
    table = pa.concat_tables([_rows(*piece) for piece in pieces])
    for number, (start, stop) in enumerate(pairwise([*starts, table.num_rows]), first):
        path = out / f"pairs-{number:05d}.parquet"
        part = path.with_name(f".{path.name}.{os.getpid()}")
        pq.write_table(table.slice(start, stop - start).combine_chunks(), part, **WRITER)
        os.replace(part, path)


def _rows(step: Path, start: int, stop: int) -> pa.Table:
    """Rows of what :func:`_merge_step` left, read as far as they are needed."""
    with pa.OSFile(str(step)) as file:
        reader = pa.ipc.open_file(file)
        tables, row = [reader.schema.empty_table()], 0
        for number in range(reader.num_record_batches):
            if row >= stop:
                break
            batch = reader.get_batch(number)
            low, high = max(start - row, 0), min(stop - row, batch.num_rows)
            if low < high:
                tables.append(pa.Table.from_batches([batch.slice(low, high - low)]))
            row += batch.num_rows
    return pa.concat_tables(tables)


def _merge_step(
    parts: Sequence[Path], digests: Sequence[Path], low: str, high: str, path: Path
) -> tuple[np.ndarray, int]:
    """Leave a step's distinct pairs in `path`; returns the rows of each of its images, int32, and the repeats."""
    listed = _between(parts, _PAIRS, low, high)
    first = _starts(listed["uid"])
    repeats = listed.num_rows - len(first)
    distinct = (
        listed.take(pa.array(first)).drop_columns(["unit", "row"]) if repeats else listed.select(pairs_schema().names)
    )
    del listed
    if digests:
        stated = _between(digests, _DIGESTS, low, high)
        distinct = _joined(distinct, stated.take(pa.array(_starts(stated["image_uid"]))))
    part = path.with_name(f"{path.name}.{os.getpid()}")
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with pa.ipc.new_file(part, distinct.schema, options=options) as file:
        file.write_table(distinct, max_chunksize=_PART_GROUP)
    os.replace(part, path)
    starts = _starts(distinct["image_uid"])
    return np.diff(np.append(starts, distinct.num_rows)).astype(np.int32), repeats


def _between(parts: Sequence[Path], kind: _Kind, low: str, high: str) -> pa.Table:
    """The rows of all parts with ``low <= image_uid < high``, sorted."""
    tables = [kind.schema.empty_table()]
    for part in parts:
        with pq.ParquetFile(part) as file:
            column = file.schema_arrow.get_field_index("image_uid")
            for group in range(file.num_row_groups):
                metadata = file.metadata.row_group(group)
                if not metadata.num_rows or metadata.column(column).statistics.max < low:
                    continue
                if metadata.column(column).statistics.min >= high:
                    break
                table = file.read_row_group(group).cast(kind.schema)
                start, stop = (pc.sum(pc.less(table["image_uid"], bound)).as_py() for bound in (low, high))
                # A copy, since a slice would keep the whole row group.
                whole = stop - start == table.num_rows
                tables.append(table if whole else table.take(pa.array(np.arange(start, stop))))
    return pa.concat_tables(tables).sort_by(kind.order)


def _bounds(parts: Sequence[Path]) -> list[str]:
    """Image uids that cut the parts into steps, with the ends of the first and the last."""
    rows = size = 0
    for part in parts:
        metadata = pq.read_metadata(part)
        rows += metadata.num_rows
        size += sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))
    steps = max(1, -(-rows // _STEP_ROWS), -(-size // _STEP_BYTES))
    return ["", *(f"{step * 16**8 // steps:08x}" for step in range(1, steps)), _END]


def _fewer(parts: Sequence[Path], kind: _Kind, folder: Path) -> Sequence[Path]:
    """At most :data:`_FAN_IN` parts with the same rows."""
    level = 0
    while len(parts) > _FAN_IN:
        groups = [parts[start : start + _FAN_IN] for start in range(0, len(parts), _FAN_IN)]
        runs = [folder / f"{group[0].stem}-{level}.parquet" for group in groups]
        done(
            tasks_for(len(groups)).map(
                _merge_group, ((group, kind, run) for group, run in zip(groups, runs, strict=True))
            )
        )
        for spent in parts if level else ():
            spent.unlink()
        parts, level = runs, level + 1
    return parts


def _merge_group(parts: Sequence[Path], kind: _Kind, run: Path) -> None:
    """Write the rows of some parts as one part."""
    part = run.with_name(f"{run.name}.{os.getpid()}")
    with pq.ParquetWriter(part, kind.schema, compression="zstd", use_dictionary=["source", "license"]) as writer:
        for low, high in pairwise(_bounds(parts)):
            writer.write_table(_between(parts, kind, low, high), row_group_size=_RUN_GROUP)
    os.replace(part, run)


def _joined(pairs: pa.Table, facts: pa.Table) -> pa.Table:
    """Pairs with the facts of their images as further members of `meta`."""
    facts_of_pairs = facts["facts"].take(pc.index_in(pairs["image_uid"], value_set=facts["image_uid"]))
    old = pc.utf8_slice_codeunits(pairs["meta"], 0, -1)  # without the closing brace
    comma = pc.if_else(pc.equal(old, "{"), "", ",")
    new = pc.binary_join_element_wise(old, comma, facts_of_pairs, "}", "")
    position = pairs.schema.get_field_index("meta")
    return pairs.set_column(position, pairs.schema.field("meta"), pc.coalesce(new, pairs["meta"]))


def _starts(column: pa.ChunkedArray) -> np.ndarray:
    """Indices at which a sorted column takes a new value."""
    if not len(column):
        return np.zeros(0, dtype=np.int64)
    changed = pc.not_equal(column.slice(1), column.slice(0, len(column) - 1)).to_numpy()
    return np.concatenate([[0], np.flatnonzero(changed) + 1]).astype(np.int64)
