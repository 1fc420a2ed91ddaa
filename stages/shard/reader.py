"""Reads shards: any sample by number, or a shard from start to end."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from stages.base.artifact import Artifact
from stages.base.contract import UserError
from stages.shard.files import ShardFiles, files_of
from stages.shard.index import IndexRow, ShardIndex, checksum, to_table
from stages.shard.scan import scan

#: Error codes of a local disk that cannot read a sector.
_UNREADABLE = (errno.EIO, errno.EBADMSG)


class DamagedShard(Exception):
    """A shard is missing or too short, or a member's checksum differs from when it was written.

    The message is one line that names shard, uid and offset, and never quotes the content.
    """


@dataclass(frozen=True)
class Sample:
    """One pair as it is stored."""

    uid: str
    image_uid: str
    source: str
    image_bytes: bytes
    ext: str
    caption: str


class ShardReader:
    """Random access to the samples of a shard artifact, or of a folder of WebDataset tars, at a path or fsspec URL.

    Cheap to construct; safe to fork, pickle and share between threads: files are opened on first read, and each
    process that unpickles a reader opens its own. Byte ranges of remote shards are kept in a cache of bounded size.

    Reading a sample raises DamagedShard if its shard is missing or too short, or if the checksum differs from when it
    was written; OSError if a store cannot be reached.
    """

    def __init__(self, where: Artifact | Path | str) -> None:
        """A folder without `index.arrow` has its `*.tar` scanned once, in name order."""
        self.where = where.url if isinstance(where, Artifact) else str(where)
        self.files: ShardFiles = files_of(self.where)

    def __getstate__(self) -> dict[str, Any]:
        return {"where": self.where, "files": self.files}

    @cached_property
    def shards(self) -> list[str]:
        """File names of the shards; a shard's number is its place in this list."""
        if self.indexed:
            return [shard["name"] for shard in self.dataset["shards"]]
        try:
            names = [name for name in self.files.names() if name.endswith(".tar")]
        except FileNotFoundError:
            raise UserError(f"{self.where}: no such folder; name the folder that holds the shards") from None
        if not names:
            raise UserError(f"{self.where}: no index.arrow and no *.tar here; name the folder that holds the shards")
        return names

    @cached_property
    def dataset(self) -> dict[str, Any]:
        """The parsed `dataset.json` of a folder with an index."""
        dataset: dict[str, Any] = json.loads(self.files.whole("dataset.json").read_text("utf-8"))
        return dataset

    @cached_property
    def index(self) -> ShardIndex:
        """Extents of every sample's parts."""
        if self.indexed:
            return ShardIndex.open(self.files.whole("index.arrow"))
        return ShardIndex(to_table(row for number in range(len(self.shards)) for row in self.scan(number)))

    @cached_property
    def indexed(self) -> bool:
        """Whether the folder has an index; otherwise one is built by reading the tars' headers."""
        try:
            return self.files.size("index.arrow") >= 0
        except FileNotFoundError:
            return False

    def scan(self, shard: int) -> list[IndexRow]:
        """Index rows of a shard, from its tar's own headers. Raises UserError for a damaged one."""
        name = self.shards[shard]
        with self.files.open(name) as file:
            return scan(file, f"{self.where}/{name}", shard)

    def __len__(self) -> int:
        """Samples in all shards."""
        return len(self.index)

    def sample(self, i: int) -> Sample:
        """Sample number `i`. Raises IndexError outside 0 <= i < len."""
        row = self.index[i]
        return Sample(row.uid, row.image_uid, row.source, self.image(row), row.image_ext, self._caption(row))

    def image(self, row: IndexRow) -> bytes:
        """The stored bytes of a row's image, verified by checksum."""
        return self._read(row, "image", row.image_offset, row.image_length, row.image_xxh3)

    def caption(self, i: int) -> str:
        """The caption of sample `i`, without reading its image."""
        return self._caption(self.index[i])

    def meta(self, i: int) -> dict[str, Any]:
        """The JSON of sample `i`; empty when it has none."""
        row = self.index[i]
        if row.json_length < 0:
            return {}
        meta = json.loads(self._read(row, "json", row.json_offset, row.json_length, row.json_xxh3))
        return meta if isinstance(meta, dict) else {}

    def of_shard(self, shard: int) -> range:
        """Numbers of the samples in a shard, in the order in which they are stored."""
        return self.index.of_shard(shard)

    def iterate(self, shard: int) -> Iterator[Sample]:
        """The samples of a shard in order."""
        for i in self.of_shard(shard):
            yield self.sample(i)

    def captions(self, shard: int) -> Iterator[str]:
        """The captions of a shard in order, without reading images."""
        for i in self.of_shard(shard):
            yield self.caption(i)

    def _caption(self, row: IndexRow) -> str:
        if row.text_length < 0:
            return ""
        return self._read(row, "text", row.text_offset, row.text_length, row.text_xxh3).decode("utf-8")

    def _read(self, row: IndexRow, part: str, offset: int, length: int, expected: int | None) -> bytes:
        name = self.shards[row.shard]
        try:
            data = self.files.read(name, offset, length)
        except FileNotFoundError:
            raise DamagedShard(f"{self._at(row, offset)}: the shard is missing") from None
        except EOFError as error:
            raise DamagedShard(f"{self._at(row, offset)}: the shard is too short: {error}") from None
        except OSError as error:
            if error.errno in _UNREADABLE:
                raise DamagedShard(f"{self._at(row, offset)}: {error.strerror}") from None
            raise OSError(f"{self._at(row, offset)}: {error}") from error
        if expected is not None and checksum(data) != expected:
            raise DamagedShard(f"{self._at(row, offset)}: the {part} is not what was written (its checksum differs)")
        return data

    def _at(self, row: IndexRow, offset: int) -> str:
        return f"{self.where}: shard {self.shards[row.shard]}, sample {row.uid} at offset {offset}"
