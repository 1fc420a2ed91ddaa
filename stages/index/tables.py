"""The tables over all sources, put together from their shards, and how they are written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray

from stages.base.artifact import Artifact
from stages.base.contract import Inputs, UserError
from stages.index.config import Hash, IndexConfig
from stages.index.near import bytes_of, first_of
from stages.index.partition import JoinedPartition, PartitionInputs, read
from stages.index.ray_tasks import in_order
from stages.index.schema import BENCHMARK_TEXTS, IMAGES, PAIRS
from stages.index.texts import Phrases

_BATCH = 1 << 24  # rows of one record batch: columns in one piece up to that, so that numpy can map them


@dataclass(frozen=True)
class Tables:
    """Everything listed, as `stages/index/schema.py` describes it."""

    images: pa.Table
    pairs: pa.Table
    texts: pa.Table
    leaders: pa.Table
    """What identifies each picture, one row per group: `pixel_sha256`, hashes and `thumbnail`, fixed-size binary."""
    rows: np.ndarray
    """Per row of `leaders` its row of `images`, int64, ascending."""


def shard_inputs(inputs: Inputs, config: IndexConfig) -> list[PartitionInputs]:
    """All shards of all sources. Raises UserError when two inputs carry one source."""
    shards = []
    names: list[str] = []
    for number, (pairs, raw, signals) in enumerate(zip(*(inputs[r] for r in ("pairs", "raw", "signals")), strict=True)):
        name = str(pairs.manifest["config"]["name"])
        if name in names:
            raise UserError(f"index: two inputs are source {name}; name each source once in `source`")
        names.append(name)
        private = name in config.private_sources
        # Fresh ones, without the manifests: every task gets its own copy.
        artifacts = [Artifact(artifact.url) for artifact in (pairs, raw, signals)]
        for file in pairs.names("pairs-*.parquet"):
            digits = file.removeprefix("pairs-").removesuffix(".parquet")
            shards.append(PartitionInputs(number, name, private, digits, *artifacts))
    return shards


def load(shards: Sequence[PartitionInputs], hashes: Sequence[Hash], phrases: Phrases) -> Tables:
    """Read and join all shards. Raises UserError where inputs disagree or list something twice."""
    shared = ray.put(phrases)
    parts = list(in_order(read, ((shard, list(hashes), shared) for shard in shards)))
    images, order = _sorted([part.images for part in parts], "image_uid", "image")
    new_row = np.empty(len(order), dtype=np.int32)
    new_row[order] = np.arange(len(order), dtype=np.int32)
    starts = np.cumsum([0, *(part.images.num_rows for part in parts)])
    image_of = [new_row[part.pairs["image"].to_numpy() + start] for part, start in zip(parts, starts[:-1], strict=True)]
    linked = [_replaced(part.pairs, "image", rows) for part, rows in zip(parts, image_of, strict=True)]
    pairs, pair_order = _sorted(linked, "uid", "pair")
    texts = _texts(parts, pair_order)
    hidden = ["pixel_sha256", *hashes, "thumbnail"]
    identity = images.select(hidden)
    images, leads = _grouped(images.drop_columns(hidden), identity["pixel_sha256"])
    rows = np.flatnonzero(leads)
    return Tables(
        _first_columns(images, IMAGES), _first_columns(pairs, PAIRS), texts, identity.take(pa.array(rows)), rows
    )


def write(table: pa.Table, file: Path) -> None:
    """Write an Arrow file that can be memory-mapped; equal tables give equal bytes."""
    plain = pa.table([_plain(column) for column in table.columns], schema=table.schema)
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, plain.schema) as out:
        out.write_table(plain, max_chunksize=_BATCH)


def _sorted(parts: list[pa.Table], key: str, what: str) -> tuple[pa.Table, np.ndarray]:
    """All rows, sorted by a column that no two may share, and the order in which they were taken."""
    whole = pa.concat_tables(parts, promote_options="permissive").combine_chunks()
    order = pc.sort_indices(whole[key])
    table = whole.take(order)
    uids = table[key].combine_chunks()
    twice = pc.equal(uids[1:], uids[:-1])
    if pc.any(twice).as_py():
        raise UserError(f"index: {what} {uids[1:].filter(twice)[0]} is listed twice; run `pairmill run ingest` again")
    return table, order.to_numpy().astype(np.int64)


def _texts(parts: Sequence[JoinedPartition], order: np.ndarray) -> pa.Table:
    new_row = np.empty(len(order), dtype=np.int32)
    new_row[order] = np.arange(len(order), dtype=np.int32)
    starts = np.cumsum([0, *(part.pairs.num_rows for part in parts)])
    moved = [
        _replaced(part.texts, "pair", new_row[part.texts["pair"].to_numpy() + start])
        for part, start in zip(parts, starts[:-1], strict=True)
    ]
    table = pa.concat_tables(moved or [BENCHMARK_TEXTS.empty_table()]).combine_chunks()
    # A caption's rows are together already, in order of the benchmarks.
    return table.take(pa.array(np.argsort(table["pair"].to_numpy(), kind="stable"))).combine_chunks()


def _grouped(images: pa.Table, digests: pa.ChunkedArray) -> tuple[pa.Table, np.ndarray]:
    """The images with `group`, and which of them lead one."""
    decoded = pc.fill_null(images["decoded"], False).combine_chunks().to_numpy(zero_copy_only=False)
    group = np.full(images.num_rows, -1, dtype=np.int32)
    rows = np.flatnonzero(decoded)
    group[rows] = rows[first_of(bytes_of(digests)[rows])]
    return images.append_column("group", pa.array(group)), group == np.arange(len(group))


def _first_columns(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table with the columns of the schema first, in its types, the others as they are."""
    first = [_cast(table[field.name], field.type) for field in schema]
    others = [name for name in table.column_names if name not in schema.names]
    columns = [*first, *(table[name] for name in others)]
    return pa.table(columns, names=[*schema.names, *others]).combine_chunks()


def _cast(column: pa.ChunkedArray, kind: pa.DataType) -> Any:
    if not pa.types.is_dictionary(kind):
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


def numbered(near: pa.Table, rows: np.ndarray, schema: pa.Schema) -> pa.Table:
    """A table of pairs of places in `rows` as one of pairs of rows; the order stays, since `rows` ascends."""
    for name in ("first", "second"):
        near = _replaced(near, name, rows[near[name].to_numpy()].astype(np.int32))
    return near.cast(schema)
