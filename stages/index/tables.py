"""The tables of one range: put together from its parts, finished with what all ranges have in common, and written."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stages.index.columns import Rows, first_of
from stages.index.equal import send_firsts
from stages.index.near import NearCopies
from stages.index.partition import read
from stages.index.schema import BENCHMARK_TEXTS, IMAGES, PAIRS, images_schema
from stages.index.texts import Phrases
from stages.index.work import IndexWork

_BATCH = 1 << 24  # rows of one record batch: columns in one piece up to that, so that numpy can map them


@dataclass(frozen=True)
class Joined:
    """What the driver learns of a range that was put together."""

    texts: int
    """Captions that share n-grams with a benchmark's texts."""
    rows: Rows
    """Global rows of pictures with the pixels of a benchmark's image."""
    held: Rows
    """Row of each one's image in the table of those held out."""


def join_range(work: IndexWork, phrases: Phrases, held_pixels: np.ndarray, number: int) -> Joined:
    """Read the parts of a range and write its pairs and texts; leave its images and what tells copies for later passes.

    `held_pixels` are the digests of the benchmarks' images, uint8 [images, 32]. Raises UserError where inputs disagree.
    """
    it = work.ranges[number]
    parts: list[dict[str, pa.Table]] = []
    alike, images, pairs = [], 0, 0
    with work.thumbnails.writing(number) as leave_thumbnails, work.patches.writing(number) as leave_patches:
        for source, digits in it.parts:
            part = read(work.sources[source], digits, work.measured, work.hashes, phrases, work.crops)
            leave_thumbnails(part.thumbnails)
            leave_patches(part.patches)
            moved = _replaced(part.pairs, "image", part.pairs["image"].to_numpy() + images)
            texts = _replaced(part.texts, "pair", part.texts["pair"].to_numpy() + pairs)
            parts.append({"images": part.images, "pairs": moved, "texts": texts})
            alike.append((part.identity, part.identity.rows + images))
            images, pairs = images + part.images.num_rows, pairs + part.pairs.num_rows
    assert (images, pairs) == (it.images, it.pairs), "a file has other rows than its end says"
    listed = [part.pop("pairs") for part in parts]
    write(_first_columns(listed, PAIRS, work.measured.pairs), work.made("pairs", number))
    texts = pa.concat_tables([BENCHMARK_TEXTS.empty_table(), *(part["texts"].cast(BENCHMARK_TEXTS) for part in parts)])
    write(texts.unify_dictionaries().combine_chunks(), work.made("benchmark-texts", number))
    before = pa.schema(list(IMAGES)[: IMAGES.get_field_index("group")])
    listed = [part.pop("images") for part in parts]
    write(_first_columns(listed, before, work.measured.images), work.path("images", number))
    rows = np.concatenate([np.empty(0, np.int64), *(rows for _, rows in alike)]) + it.first_image
    work.column("decoded").write(number, rows)
    for name in work.hashes:
        work.words(name).write(number, np.concatenate([identity.hashes[name] for identity, _ in alike]))
    digests = np.concatenate([identity.pixel_sha256 for identity, _ in alike])
    first = send_firsts(work.exchange("pixels"), number, digests, rows, digests[:, :8].copy().view(np.uint64).ravel())
    work.column("first").write(number, first)
    among = first_of(np.concatenate([digests, held_pixels]))[len(digests) :]
    hit = np.flatnonzero(among < len(digests))
    return Joined(texts.num_rows, rows[among[hit]], hit)


def finish_range(work: IndexWork, number: int) -> Counter[str]:
    """Write the images of a range, with their groups and classes, and the near copies that start in it."""
    it = work.ranges[number]
    with pa.memory_map(work.path("images", number)) as mapped:
        images = pa.ipc.open_file(mapped).read_all()
    group, copies = work.column("group").of(number), work.column("copies", "bool").of(number)
    columns: dict[str, Any] = {"group": group, "copies": copies}
    counts: Counter[str] = Counter()
    own = np.arange(it.first_image, it.first_image + it.images)
    for name in work.hashes:
        copied = NearCopies(work, name)
        edges = copied.edges(number)
        write(edges, work.made(f"near-{name}", number))
        counts[f"near.{name}"] += edges.num_rows
        column, among = copied.classes(number, group)
        near = np.isin(own, np.concatenate([edges["first"].to_numpy(), copied.seconds(number)]))
        columns[f"class_{name}"], columns[f"similar_{name}"] = column, copies | among | near
    first = images_schema(work.hashes)
    values = [
        pa.array(np.asarray(columns[field.name])) if field.name in columns else images[field.name] for field in first
    ]
    values += [images[name] for name in work.measured.images.names]
    write(pa.table(values, schema=pa.schema([*first, *work.measured.images])), work.made("images", number))
    return counts


def write(table: pa.Table, file: str | Path) -> None:
    """Write an Arrow file that can be memory-mapped; equal tables give equal bytes."""
    plain = pa.table([_plain(column) for column in table.columns], schema=table.schema)
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, plain.schema) as out:
        out.write_table(plain, max_chunksize=_BATCH)


def _first_columns(parts: list[pa.Table], first: pa.Schema, others: pa.Schema) -> pa.Table:
    """The rows of all parts with the columns of two schemas, in their types. Empties the list: each column of the parts
    is let go once it is copied."""
    schema = pa.schema([*first, *others])
    held = [dict(zip(part.column_names, part.columns, strict=True)) for part in parts]
    parts.clear()
    columns = []
    for field in schema:
        chunks = [chunk for part in held for chunk in part.pop(field.name).chunks]
        kind = chunks[0].type if chunks else field.type
        columns.append(_cast(pa.chunked_array(chunks, kind), field.type))
        if isinstance(columns[-1], pa.ChunkedArray):
            columns[-1] = columns[-1].combine_chunks()
    return pa.table(columns, schema=schema)


def _cast(column: pa.ChunkedArray, kind: pa.DataType) -> Any:
    if not pa.types.is_dictionary(kind) or pa.types.is_dictionary(column.type):
        return column.cast(kind)
    coded = column.combine_chunks().dictionary_encode()
    return pa.DictionaryArray.from_arrays(coded.indices.cast(kind.index_type), coded.dictionary)


def _replaced(table: pa.Table, name: str, values: np.ndarray) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), name, pa.array(values))


def _plain(column: pa.ChunkedArray) -> Any:
    """The same values, with zeros under the nulls of numeric columns, where anything could lie otherwise."""
    kind = column.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)) or not column.null_count:
        return column
    missing = pc.is_null(column).combine_chunks().to_numpy(zero_copy_only=False)
    zero = pa.scalar(0, kind)
    return pa.array(pc.fill_null(column, zero).combine_chunks().to_numpy(), mask=missing)
