"""Reading shards: any sample by number, or a shard from end to end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from stages.artifact import Artifact, is_remote
from stages.contract import UserError
from stages.shard.handles import Handles
from stages.shard.index import Index, Row, scan_tar, to_table


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
    """Random access to the samples of a shard artifact, or of a folder of WebDataset tars.

    Cheap to construct, safe to fork, pickle and share between threads: files are opened when first read, and each
    process that unpickles a reader opens its own.
    """

    def __init__(self, where: Artifact | Path | str) -> None:
        """A folder without `index.arrow` has its `*.tar` scanned once, in name order."""
        self.where = where.url if isinstance(where, Artifact) else str(where)
        self._artifact: Artifact | None = where if isinstance(where, Artifact) else None
        if self._artifact is None and is_remote(self.where):
            self._artifact = Artifact(self.where)
        self._handles = Handles()

    def __getstate__(self) -> dict[str, Any]:
        return {"_artifact": self._artifact, "where": self.where, "_handles": self._handles}

    @cached_property
    def shards(self) -> list[str]:
        """File names of the shards; a shard's number is its place in this list."""
        if self._indexed:
            listed = json.loads(self._path("dataset.json").read_text("utf-8"))
            return [shard["name"] for shard in listed["shards"]]
        names = sorted(path.name for path in Path(self.where).glob("*.tar"))
        if not names:
            raise UserError(f"{self.where}: no index.arrow and no *.tar here; name the folder that holds the shards")
        return names

    @cached_property
    def index(self) -> Index:
        """Where every sample is."""
        if self._indexed:
            return Index.open(self._path("index.arrow"))
        return Index(to_table(row for n, name in enumerate(self.shards) for row in scan_tar(self._path(name), n)))

    def __len__(self) -> int:
        """Samples in all shards."""
        return len(self.index)

    def sample(self, i: int) -> Sample:
        """Sample number `i`. Raises IndexError outside 0 <= i < len."""
        return self._sample(self.index[i])

    def caption(self, i: int) -> str:
        """The caption of sample `i` alone, its image untouched."""
        return self._caption(self.index[i])

    def meta(self, i: int) -> dict[str, Any]:
        """The JSON of sample `i`; empty when it has none."""
        row = self.index[i]
        if row.json_length < 0:
            return {}
        meta = json.loads(self._read(row, row.json_offset, row.json_length))
        return meta if isinstance(meta, dict) else {}

    def of_shard(self, shard: int) -> range:
        """Numbers of the samples in a shard, which lie in it in that order."""
        return self.index.of_shard(shard)

    def iterate(self, shard: int) -> Iterator[Sample]:
        """The samples of a shard in order."""
        for i in self.of_shard(shard):
            yield self.sample(i)

    def captions(self, shard: int) -> Iterator[str]:
        """The captions of a shard in order, images untouched."""
        for i in self.of_shard(shard):
            yield self.caption(i)

    @cached_property
    def _indexed(self) -> bool:
        return self._artifact is not None or Path(self.where, "index.arrow").exists()

    def _path(self, name: str) -> Path:
        return self._artifact.path(name) if self._artifact else Path(self.where, name)

    def _sample(self, row: Row) -> Sample:
        image = self._read(row, row.image_offset, row.image_length)
        return Sample(row.uid, row.image_uid, row.source, image, row.image_ext, self._caption(row))

    def _caption(self, row: Row) -> str:
        if row.text_length < 0:
            return ""
        return self._read(row, row.text_offset, row.text_length).decode("utf-8")

    def _read(self, row: Row, offset: int, length: int) -> bytes:
        name = self.shards[row.shard]
        try:
            return self._handles.read(self._path(name), offset, length)
        except (OSError, EOFError) as error:
            raise RuntimeError(f"{self.where}: shard {name}, sample {row.uid} at offset {offset}: {error}") from error
