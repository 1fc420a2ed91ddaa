"""Writing a shard: the webdataset library's tar writer with fixed headers, and where in the tar each part went."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

_BLOCK = 512


class Extent(NamedTuple):
    """Where a member's data lie in the tar, in bytes."""

    offset: int
    length: int


class ShardWriter:
    """Writes one shard; a context manager."""

    def __init__(self, path: Path) -> None:
        """Equal samples give equal bytes: no time, user or host goes into the tar."""
        from webdataset.writer import TarWriter

        self._file = open(path, "wb")  # noqa: SIM115 - closed by close()
        self._tar = TarWriter(self._file, user="", group="", mode=0o644, mtime=0, compress=False, encoder=False)

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, key: str, parts: Mapping[str, bytes]) -> dict[str, Extent]:
        """Append one sample, `<key>.<extension>` per part; returns where each part's data begin.

        `key` with extension has at most 100 ASCII characters, so that each header is a single block.
        """
        end = self._tar.tarstream.offset
        extents = {}
        for extension in sorted(parts):  # the library's order
            length = len(parts[extension])
            extents[extension] = Extent(end + _BLOCK, length)
            end += _BLOCK + -(-length // _BLOCK) * _BLOCK
        self._tar.write({"__key__": key, **parts})
        if self._tar.tarstream.offset != end:
            raise RuntimeError(f"{self._file.name}: sample {key} ends at {self._tar.tarstream.offset}, not at {end}")
        return extents

    def close(self) -> None:
        """Finish the tar."""
        self._tar.close()
        self._file.close()
