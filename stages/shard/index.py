"""The random-access index of shards: one row per sample, in sample order, memory-mapped."""

from __future__ import annotations

import bisect
from collections.abc import Iterable
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from stages.shard.columns import Getter, getter, integers
from stages.shard.row import Row
from stages.shard.scan import scan_tar

__all__ = ["Index", "Row", "checksum", "index_schema", "scan_tar", "to_table", "write_index"]

_BATCH = 1 << 20


def index_schema() -> pa.Schema:
    """Arrow schema of `index.arrow`."""
    places = ("image_offset", "image_length", "text_offset", "text_length", "json_offset", "json_length")
    return pa.schema(
        [
            pa.field("uid", pa.string(), nullable=False),
            pa.field("image_uid", pa.string(), nullable=False),
            pa.field("source", pa.dictionary(pa.int32(), pa.string()), nullable=False),
            pa.field("shard", pa.int32(), nullable=False),
            pa.field("image_ext", pa.string(), nullable=False),
            *(pa.field(name, pa.int64(), nullable=False) for name in places),
            pa.field("repeats", pa.int16(), nullable=False),
            *(pa.field(f"{part}_xxh3", pa.uint64()) for part in ("image", "text", "json")),
        ]
    )


def checksum(data: bytes) -> int:
    """xxh3_64 of a part's bytes, as the index holds it (some 10 GB/s: a thousandth of what decoding costs)."""
    return xxh3_64_intdigest(data)


def to_table(rows: Iterable[Row]) -> pa.Table:
    """An index table of rows."""
    return pa.Table.from_pylist([row._asdict() for row in rows], index_schema())


def write_index(path: Path, tables: Iterable[pa.Table]) -> None:
    """Write `index.arrow` from the tables of its shards, in shard order."""
    table = pa.concat_tables([index_schema().empty_table(), *map(_whole, tables)]).unify_dictionaries()
    with pa.ipc.new_file(str(path), table.schema) as writer:
        # Few large batches, however many shards there are: a lookup has to find its batch.
        writer.write_table(table.combine_chunks(), max_chunksize=_BATCH)


def _whole(table: pa.Table) -> pa.Table:
    """With the columns that an index written by an earlier version lacks."""
    for name, default in Row._field_defaults.items():
        if name not in table.column_names:
            field = index_schema().field(name)
            table = table.append_column(field, pa.repeat(pa.scalar(default, field.type), len(table)))
    return table.select(index_schema().names)


class Index:
    """Rows by sample number."""

    def __init__(self, table: pa.Table) -> None:
        """Raises ValueError naming the first row that is not in shard order."""
        self.table = table
        self._batches = table.to_batches()
        self._starts = [0]
        for batch in self._batches:
            self._starts.append(self._starts[-1] + len(batch))
        self._getters: dict[int, list[Getter]] = {}
        shards = self.shards
        if (shards[1:] < shards[:-1]).any():
            place = int((shards[1:] < shards[:-1]).argmax()) + 1
            raise ValueError(f"row {place} (uid {self[place].uid}) is not in shard order")

    @classmethod
    def open(cls, path: Path) -> Index:
        """The index in a file, memory-mapped."""
        return cls(pa.ipc.open_file(pa.memory_map(str(path))).read_all())

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, sample: int) -> Row:
        """The row of a sample. Raises IndexError outside 0 <= sample < len."""
        if not 0 <= sample < len(self):
            raise IndexError(f"sample {sample} of {len(self)}")
        batch = bisect.bisect_right(self._starts, sample) - 1
        place = sample - self._starts[batch]
        getters = self._getters.get(batch)
        if getters is None:
            getters = self._getters[batch] = self._views(self._batches[batch])
        return Row(*[get(place) for get in getters])

    @staticmethod
    def _views(batch: pa.RecordBatch) -> list[Getter]:
        names = set(batch.schema.names)
        return [
            getter(batch.column(name)) if name in names else partial(_constant, Row._field_defaults[name])
            for name in Row._fields
        ]

    @cached_property
    def shards(self) -> NDArray[np.int32]:
        """Number of each sample's shard, int32 [samples], ascending."""
        return np.concatenate([np.empty(0, np.int32), *map(integers, self.table["shard"].chunks)])

    def sources(self) -> tuple[NDArray[np.int32], list[str]]:
        """Number of each sample's source, int32 [samples], and the sources' names by number."""
        column = self.table["source"].unify_dictionaries()
        if not column.num_chunks:
            return np.empty(0, np.int32), []
        codes = np.concatenate([integers(chunk.indices) for chunk in column.chunks])
        return codes, column.chunk(0).dictionary.to_pylist()

    @property
    def repeats(self) -> pa.ChunkedArray | None:
        """How often an epoch shows each sample, int16 [samples]; null in an index without such a column."""
        return self.table["repeats"] if "repeats" in self.table.column_names else None

    def of_shard(self, shard: int) -> range:
        """Numbers of the samples in a shard."""
        first, last = self.shards.searchsorted([shard, shard + 1])
        return range(int(first), int(last))


def _constant(value: Any, place: int) -> Any:
    return value
