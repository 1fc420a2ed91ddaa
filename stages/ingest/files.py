"""Input files of a source: what its paths, folders and globs stand for, here, in object stores and in worlds."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import IO, Any, cast

from stages.artifact import Artifact, is_remote
from stages.contract import UserError

_MAGIC = frozenset("*?[")


@dataclass(frozen=True)
class InputFile:
    """One input file: what it is called and where it is."""

    name: str
    """Relative to the folder that all files of the source share, so the same wherever that folder lies."""
    url: str
    """Local path or fsspec URL."""

    def open(self, **options: Any) -> IO[bytes]:
        """Open for reading bytes, seekable unless compressed."""
        if not is_remote(self.url) and not options:
            return open(self.url, "rb")
        import fsspec

        return cast("IO[bytes]", fsspec.open(self.url, "rb", **options).open())

    def size(self) -> int:
        """Bytes in the file."""
        if not is_remote(self.url):
            return os.path.getsize(self.url)
        import fsspec

        fs, path = fsspec.core.url_to_fs(self.url)
        return int(fs.size(path))


def find(patterns: Iterable[str], key: str) -> list[InputFile]:
    """Files outside a world, sorted by name; a folder stands for all files in it.

    Raises UserError naming config key `key` for a pattern that finds nothing.
    """
    urls: set[str] = set()
    for pattern in patterns:
        found = _expand(pattern)
        if not found:
            raise UserError(f"{key}: nothing at {pattern}; put the files there or name the right place")
        urls.update(found)
    return _named(sorted(urls))


def find_in_world(world: Artifact, patterns: Iterable[str], key: str) -> list[InputFile]:
    """Files of a world's artifact, sorted by name. Raises UserError naming `key` for a pattern that finds nothing."""
    listed = world.names()
    urls: set[str] = set()
    for pattern in patterns:
        below = pattern.rstrip("/") + "/*"
        found = [name for name in listed if fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(name, below)]
        if not found:
            raise UserError(f"{key}: the world has no file {pattern}; see its manifest.json for what it has")
        urls.update(found)
    return [InputFile(file.name, f"{world.url}/{file.url}") for file in _named(sorted(urls))]


def _expand(pattern: str) -> list[str]:
    import fsspec

    fs, path = fsspec.core.url_to_fs(pattern)
    if _MAGIC & set(path):
        found = [item for item in fs.glob(path) if not fs.isdir(item)]
    elif fs.isdir(path):
        found = fs.find(path)
    else:
        found = [path] if fs.exists(path) else []
    return [str(fs.unstrip_protocol(item)) if is_remote(pattern) else str(item) for item in found]


def _named(urls: Sequence[str]) -> list[InputFile]:
    folders = [url.split("/")[:-1] for url in urls]
    shared = sum(1 for _ in takewhile(lambda level: len(set(level)) == 1, zip(*folders, strict=False)))
    return [InputFile("/".join(url.split("/")[shared:]), url) for url in urls]
