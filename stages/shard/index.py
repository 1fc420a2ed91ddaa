"""The random-access index of shards: one row per sample, in sample order, memory-mapped."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

_BATCH = 1 << 20

#: Returns the value in a row of a column, by the row's number.
Getter = Callable[[int], Any]


class IndexRow(NamedTuple):
    """One sample: its identity, and the extent of each part. Offsets and lengths are bytes in the shard; a length of
    -1 means that the sample has no such part."""

    uid: str
    image_uid: str
    source: str
    shard: int
    image_ext: str
    image_offset: int
    image_length: int
    text_offset: int
    text_length: int
    json_offset: int
    json_length: int
    repeats: int = 1
    """How often an epoch of training shows the sample."""
    image_xxh3: int | None = None
    """xxh3_64 of the part's bytes; None where it is unknown and therefore not checked."""
    text_xxh3: int | None = None
    json_xxh3: int | None = None


def index_schema() -> pa.Schema:
    """Arrow schema of `index.arrow`."""
    extents = ("image_offset", "image_length", "text_offset", "text_length", "json_offset", "json_length")
    return pa.schema(
        [
            pa.field("uid", pa.string(), nullable=False),
            pa.field("image_uid", pa.string(), nullable=False),
            pa.field("source", pa.dictionary(pa.int32(), pa.string()), nullable=False),
            pa.field("shard", pa.int32(), nullable=False),
            pa.field("image_ext", pa.string(), nullable=False),
            *(pa.field(name, pa.int64(), nullable=False) for name in extents),
            pa.field("repeats", pa.int16(), nullable=False),
            *(pa.field(f"{part}_xxh3", pa.uint64()) for part in ("image", "text", "json")),
        ]
    )


def checksum(data: bytes) -> int:
    """xxh3_64 of a part's bytes, as stored in the index (about 10 GB/s: a thousandth of what decoding costs)."""
    return xxh3_64_intdigest(data)


def to_table(rows: Iterable[IndexRow]) -> pa.Table:
    """An index table of rows."""
    return pa.Table.from_pylist([row._asdict() for row in rows], index_schema())


def write_index(path: Path, tables: Iterable[pa.Table], sources: Sequence[str] | None = None) -> None:
    """Write `index.arrow` from the tables of its shards, in shard order; one batch of them is in memory at a time.

    `sources`: all sources, in the order in which they first occur; without them, the tables are gone through twice.
    """
    if sources is None:
        tables = list(tables)
        sources = list(dict.fromkeys(name for table in tables for name in _sources(table)))
    names = pa.array(sources, pa.string())
    with pa.ipc.new_file(str(path), index_schema()) as writer:
        # Few large batches, however many shards there are, because each lookup searches for its batch.
        waiting: list[pa.Table] = []
        rows = 0
        for table in tables:
            start = 0
            while start < len(table):
                piece = table.slice(start, _BATCH - rows)
                waiting.append(_with_sources(_whole(piece), names))
                start, rows = start + len(piece), rows + len(piece)
                if rows == _BATCH:
                    writer.write_table(pa.concat_tables(waiting).combine_chunks())
                    waiting, rows = [], 0
        if waiting:
            writer.write_table(pa.concat_tables(waiting).combine_chunks())


def _whole(table: pa.Table) -> pa.Table:
    """The table with the columns that an index written by an earlier version lacks."""
    for name, default in IndexRow._field_defaults.items():
        if name not in table.column_names:
            field = index_schema().field(name)
            table = table.append_column(field, pa.repeat(pa.scalar(default, field.type), len(table)))
    return table.select(index_schema().names)


def _sources(table: pa.Table) -> Iterator[str]:
    for chunk in table["source"].chunks:
        yield from chunk.dictionary.to_pylist()


def _with_sources(table: pa.Table, sources: pa.Array) -> pa.Table:
    """The table with these sources as the dictionary of its column `source`."""
    place = table.schema.get_field_index("source")
    chunks = []
    for chunk in table.column(place).chunks:
        codes = pc.index_in(chunk.dictionary, value_set=sources).take(chunk.indices)
        chunks.append(pa.DictionaryArray.from_arrays(codes, sources))
    column = pa.chunked_array(chunks, index_schema().field(place).type)
    return table.set_column(place, index_schema().field(place), column)


class ShardIndex:
    """Rows by sample number. Reads the rows that are asked for and no other, however many there are."""

    def __init__(self, table: pa.Table) -> None:
        """Whatever first uses a row checks that its batch is in shard order, and raises ValueError naming the first
        row that is not (:meth:`check_order` goes through all)."""
        self.table = table
        self._batches = [batch for batch in table.to_batches() if len(batch)]
        self._starts = [0]
        for batch in self._batches:
            self._starts.append(self._starts[-1] + len(batch))
        self._first_shards = [int(integers(batch.column("shard"))[0]) for batch in self._batches]
        self._getters: dict[int, list[Getter]] = {}
        self._checked: dict[int, NDArray[np.int32]] = {}

    @classmethod
    def open(cls, path: Path) -> ShardIndex:
        """The index in a file, memory-mapped."""
        return cls(pa.ipc.open_file(pa.memory_map(str(path))).read_all())

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, sample: int) -> IndexRow:
        """The row of a sample. Raises IndexError outside 0 <= sample < len."""
        if not 0 <= sample < len(self):
            raise IndexError(f"sample {sample} of {len(self)}")
        batch = bisect.bisect_right(self._starts, sample) - 1
        row = sample - self._starts[batch]
        getters = self._getters.get(batch)
        if getters is None:
            self._shards(batch)
            getters = self._getters[batch] = self._views(self._batches[batch])
        return IndexRow(*[get(row) for get in getters])

    @staticmethod
    def _views(batch: pa.RecordBatch) -> list[Getter]:
        names = set(batch.schema.names)
        return [
            getter(batch.column(name)) if name in names else partial(_constant, IndexRow._field_defaults[name])
            for name in IndexRow._fields
        ]

    def tables(self) -> Iterator[pa.Table]:
        """All rows in order, some 10⁶ at a time."""
        for number, batch in enumerate(self._batches):
            self._shards(number)
            yield pa.Table.from_batches([batch])

    def find(self, uid: str) -> int | None:
        """Number of the sample with a uid, which is looked for from the first on; None where there is none."""
        for start, batch in zip(self._starts, self._batches, strict=False):
            if (row := pc.index(batch.column("uid"), uid).as_py()) >= 0:
                return start + int(row)
        return None

    def check_order(self) -> None:
        """Raises ValueError naming the first row that is not in shard order."""
        for batch in range(len(self._batches)):
            self._shards(batch)

    def of_shard(self, shard: int) -> range:
        """Numbers of the samples in a shard."""
        return range(self._lower(shard), self._lower(shard + 1))

    def _lower(self, shard: int) -> int:
        """Number of the first sample in this shard or a later one."""
        batch = bisect.bisect_left(self._first_shards, shard) - 1
        return 0 if batch < 0 else self._starts[batch] + int(self._shards(batch).searchsorted(shard))

    def _shards(self, batch: int) -> NDArray[np.int32]:
        """Shard of each row of a batch, int32 [rows of the batch], ascending."""
        shards = self._checked.get(batch)
        if shards is None:
            shards = integers(self._batches[batch].column("shard"))
            before = int(integers(self._batches[batch - 1].column("shard"))[-1]) if batch else int(shards[0])
            wrong = np.flatnonzero(np.diff(shards, prepend=np.int32(before)) < 0)
            if len(wrong):
                row = self._starts[batch] + int(wrong[0])
                raise ValueError(f"row {row} (uid {self.table['uid'][row].as_py()}) is not in shard order")
            self._checked[batch] = shards
        return shards

    def sources(self) -> list[str]:
        """The names of all sources, in order of their numbers."""
        return list(
            dict.fromkeys(name for batch in self._batches[:1] for name in _sources(pa.Table.from_batches([batch])))
        )

    @property
    def repeats(self) -> pa.ChunkedArray | None:
        """How often an epoch shows each sample, int16 [samples]; null in an index without such a column."""
        return self.table["repeats"] if "repeats" in self.table.column_names else None


def _constant(value: Any, row: int) -> Any:
    return value


def getter(column: pa.Array) -> Getter:
    """Access to one chunk of a column of strings, dictionary-encoded strings or integers, without copying it.

    Reads views of the memory-mapped buffers, since making an Arrow scalar per value would cost several times as much.
    """
    if column.null_count or not len(column):
        return lambda row: column[row].as_py()
    if pa.types.is_dictionary(column.type):
        codes, names = getter(column.indices), column.dictionary.to_pylist()
        return lambda row: names[codes(row)]
    if pa.types.is_string(column.type):
        return _strings(column)
    if pa.types.is_integer(column.type):
        # A memoryview returns plain integers, and faster than numpy does.
        return _plain(integers(column))
    return lambda row: column[row].as_py()


def integers(column: pa.Array) -> NDArray[Any]:
    """A chunk of integers without nulls as an array [length] of its type; `to_numpy` would import pandas."""
    kind = np.dtype(str(column.type))
    if not len(column):
        return np.empty(0, kind)
    return np.frombuffer(column.buffers()[1], kind, len(column), column.offset * kind.itemsize)


def _strings(column: pa.Array) -> Getter:
    _, starts, text = column.buffers()
    first = column.offset
    bounds = _plain(np.frombuffer(starts, np.int32, first + len(column) + 1)[first:])
    data = memoryview(text) if text is not None else memoryview(b"")
    return lambda row: str(data[bounds(row) : bounds(row + 1)], "utf-8")


def _plain(values: NDArray[Any]) -> Getter:
    return cast("Getter", memoryview(values).__getitem__)  # type: ignore[arg-type]  # an array is a buffer
