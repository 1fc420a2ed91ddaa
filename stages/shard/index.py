"""The random-access index of shards: one row per sample, in sample order, memory-mapped."""

from __future__ import annotations

import bisect
import json
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from stages.contract import UserError

#: Extensions of members that are images, as WebDataset names them.
IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff")

_BATCH = 1 << 20


@dataclass(frozen=True)
class Row:
    """Where the parts of one sample are. Offsets and lengths are bytes in the shard; length -1: no such part."""

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
        ]
    )


def to_table(rows: Iterable[Row]) -> pa.Table:
    """An index table of rows."""
    return pa.Table.from_pylist([vars(row) for row in rows], index_schema())


def write_index(path: Path, tables: Iterable[pa.Table]) -> None:
    """Write `index.arrow` from the tables of its shards, in shard order."""
    table = pa.concat_tables([index_schema().empty_table(), *tables]).unify_dictionaries()
    with pa.ipc.new_file(str(path), table.schema) as writer:
        # Few large batches, however many shards there are: a lookup has to find its batch.
        writer.write_table(table.combine_chunks(), max_chunksize=_BATCH)


class Index:
    """Rows by sample number."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table
        self._batches = table.to_batches()
        self._starts = [0]
        for batch in self._batches:
            self._starts.append(self._starts[-1] + len(batch))
        shards = table.column("shard").to_numpy()
        if (shards[1:] < shards[:-1]).any():
            raise ValueError("index rows are not in shard order")
        self._shards = shards

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
        return Row(*(column[place].as_py() for column in self._batches[batch].columns))

    @property
    def repeats(self) -> pa.ChunkedArray | None:
        """How often an epoch shows each sample, int16 [samples]; null in an index without such a column."""
        return self.table["repeats"] if "repeats" in self.table.column_names else None

    def of_shard(self, shard: int) -> range:
        """Numbers of the samples in a shard."""
        first, last = self._shards.searchsorted([shard, shard + 1])
        return range(int(first), int(last))


def scan_tar(path: Path, shard: int = 0) -> list[Row]:
    """Index any WebDataset tar by reading it once: neighbours that share a name up to its first dot are a sample.

    `uid`, `image_uid` and `source` come from the JSON member where it has them; the key stands in for the first two.
    Raises UserError naming tar, key and offset for a sample without an image and for a file that is no tar.
    """
    try:
        with tarfile.open(path) as tar:
            return [_row(path, shard, key, parts) for key, parts in _samples(tar)]
    except tarfile.ReadError as error:
        raise UserError(f"{path}: not a readable tar ({error}); fetch or write it again") from None


Part = tuple[int, int, bytes | None]


def _samples(tar: tarfile.TarFile) -> Iterator[tuple[str, dict[str, Part]]]:
    key, parts = "", dict[str, Part]()
    for member in tar:
        if not member.isfile():
            continue
        folder, _, base = member.name.rpartition("/")
        stem, _, extension = base.partition(".")
        name = f"{folder}/{stem}" if folder else stem
        extension = extension.lower()
        if name != key or extension in parts:
            if parts:
                yield key, parts
            key, parts = name, {}
        reader = tar.extractfile(member) if extension == "json" else None
        parts[extension] = (member.offset_data, member.size, reader.read() if reader else None)
    if parts:
        yield key, parts


def _row(path: Path, shard: int, key: str, parts: dict[str, Part]) -> Row:
    absent: Part = (0, -1, None)
    extension = next((e for e in IMAGE_EXTENSIONS if e in parts), None)
    if extension is None:
        offset = min(part[0] for part in parts.values())
        raise UserError(f"{path}: sample {key} at offset {offset} holds no image, only {', '.join(parts)}")
    image, text, told = parts[extension], parts.get("txt", absent), parts.get("json", absent)
    meta: Any = {}
    if told[2] is not None:
        try:
            meta = json.loads(told[2])
        except ValueError as error:
            raise UserError(f"{path}: sample {key} at offset {told[0]}: not JSON ({error})") from None
    meta = meta if isinstance(meta, dict) else {}
    uid = str(meta.get("uid", key))
    return Row(
        uid,
        str(meta.get("image_uid", uid)),
        str(meta.get("source", "")),
        shard,
        extension,
        *image[:2],
        *text[:2],
        *told[:2],
    )
