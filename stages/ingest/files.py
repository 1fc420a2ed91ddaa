"""Input files of a source: what its paths, folders, globs, URLs and addresses stand for."""

from __future__ import annotations

import fnmatch
import io
import lzma
import os
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import IO, Any, NamedTuple, cast

from stages.base.artifact import Artifact, is_remote
from stages.base.contract import Inputs, UserError
from stages.base.external_files import find_in_worlds, is_system_file, parse

_MAGIC = frozenset("*?[")
_ARCHIVES = ("zip://", "tar://", "libarchive://")
_BUFFER = 1 << 20  # bytes
#: Endings of compressed text lists, read without unpacking them first.
COMPRESSED = (".gz", ".bz2", ".xz", ".zst")


@dataclass(frozen=True, slots=True)
class InputFile:
    """One input file: what it is called and where it is."""

    name: str
    """Relative to the folder that all files of the source share, so the same wherever that folder lies."""
    url: str
    """Local path or fsspec URL."""

    @property
    def compressed(self) -> bool:
        """Whether its name says that it is compressed, so that it can only be read from the start."""
        return self.name.lower().endswith(COMPRESSED)

    def open(self, **options: Any) -> IO[bytes]:
        """Open for reading the bytes as they are, seekable."""
        if not is_remote(self.url) and not options:
            return open(self.url, "rb")
        import fsspec

        return cast("IO[bytes]", fsspec.open(self.url, "rb", **options).open())

    def open_text(self) -> io.BufferedReader:
        """Open for reading lines of bytes, unpacked if need be; seekable unless compressed."""
        ending = self.name.lower().rsplit(".", 1)[-1]
        raw: Any
        if not self.compressed:
            raw = self.open()
        elif ending == "zst":  # the standard library of this Python has no zstd, Arrow does
            import pyarrow as pa

            raw = pa.CompressedInputStream(self.open(), "zstd")
        else:
            raw = self.open(compression={"gz": "gzip"}.get(ending, ending))
        return raw if isinstance(raw, io.BufferedReader) else io.BufferedReader(raw, _BUFFER)

    def size(self) -> int:
        """Bytes in the file."""
        if not is_remote(self.url):
            return os.path.getsize(self.url)
        import fsspec

        fs, path = fsspec.core.url_to_fs(self.url)
        return int(fs.size(path))


class BadFile(Exception):
    """A whole file that cannot be read as what it should be; recorded, and tolerated up to `ingest.max_bad_files`."""

    def __init__(self, file: InputFile, reason: str, detail: str = "") -> None:
        super().__init__(file, reason, detail)
        self.file = file
        self.reason = reason
        """A fixed phrase in snake_case."""
        self.detail = detail
        """What is wrong and which key would help; may name columns, never quotes a row."""


def read_errors() -> tuple[type[Exception], ...]:
    """Errors that a damaged file may cause; :func:`damage` decides whether it did."""
    import pyarrow as pa

    return BadFile, OSError, EOFError, zlib.error, lzma.LZMAError, pa.ArrowException


def damage(error: Exception, file: InputFile) -> BadFile | None:
    """An error of :func:`read_errors` as a fault of the file; None where it may be the program's or the network's.

    A failure that may pass (a time-out, a reset, an object store's answer) must not be recorded for good in an
    artifact, so it is no damage: it stops the partition, which the next run repeats.
    """
    import pyarrow as pa

    if isinstance(error, BadFile):
        return error
    if isinstance(error, ConnectionError | TimeoutError | FileNotFoundError):
        return None
    if isinstance(error, PermissionError | IsADirectoryError) and not is_remote(file.url):
        return BadFile(file, "unreadable", "no permission to read it, or not a file")
    if isinstance(error, OSError):  # Arrow and gzip raise it for bad bytes, without the number of an operating system
        return BadFile(file, "damaged", "its bytes do not decode") if error.errno is None else None
    if isinstance(error, EOFError | zlib.error | lzma.LZMAError | pa.ArrowException):
        return BadFile(file, "damaged", "its bytes do not decode")
    return None


class Found(NamedTuple):
    """What :func:`find` finds."""

    files: list[InputFile]
    """Sorted by name."""
    system_files: int
    """Files passed over because an operating system or Spark made them (`stages.base.external_files`)."""


def find(patterns: Iterable[str], key: str, inputs: Inputs | None = None, private: bool = False) -> Found:
    """Files that paths, folders, globs, URLs and addresses in `inputs` stand for.

    A folder stands for all files in it. What an operating system puts beside files is passed over, unless it is named
    itself. Files of one's own are named from their common folder, and so are those of each input, after the name of its
    world where files come from several places. Raises UserError naming config key `key` for a pattern that finds
    nothing; of a private source by its number in the list, since a folder's name may be a patient's.
    """
    passed_over: set[str] = set()
    own: set[str] = set()
    held: dict[tuple[str, str], set[str]] = {}
    for number, pattern in enumerate(patterns, 1):
        home = find_in_worlds(pattern, inputs or {})
        if pattern.startswith(_ARCHIVES):
            place = f"place {number} of the list" if private else pattern
            raise UserError(f"{key}: {place} is inside an archive, which is not read in place; unpack it")
        everything = _expand(pattern) if home is None else _matching(*home)
        matches = [name for name in everything if _is_data(name, pattern)]
        passed_over.update(set(everything) - set(matches))
        if not matches:
            if home is not None:
                raise UserError(f"{key}: nothing at {pattern}; {home[0].url}/manifest.json lists what is there")
            place = f"place {number} of the list" if private else pattern
            nothing = "nothing but files of the operating system" if everything else "nothing"
            raise UserError(f"{key}: {nothing} at {place}; put the files there or name the right place")
        address = parse(pattern)
        (own if home is None or address is None else held.setdefault((address.world, home[0].url), set())).update(
            matches
        )
    files = _named(sorted(own))
    mixed = len(held) + bool(own) > 1
    for (world, root), names in held.items():
        prefix = f"{world}/" if mixed else ""
        files += [InputFile(prefix + file.name, f"{root}/{file.url}") for file in _named(sorted(names))]
    return Found(sorted(files, key=lambda file: file.name), len(passed_over))


def _is_data(name: str, pattern: str) -> bool:
    """Whether a file that a pattern stands for is named by it, or is none that an operating system made."""
    parts, given = name.split("/"), _full(pattern).rstrip("/").split("/")
    # What is above the first wildcard was named by the user.
    named = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(parts, given, strict=False)))
    return parts[-1] == given[-1] or not is_system_file("/".join(parts[named:]))


def _matching(artifact: Artifact, pattern: str) -> list[str]:
    """Names of an artifact's files that a pattern or folder stands for; ``*`` also matches ``/``."""
    below = pattern.rstrip("/") + "/*" if pattern else "*"
    return [name for name in artifact.names() if fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(name, below)]


def relative(file: InputFile, root: str) -> str | None:
    """A file's path below a folder (a local path or fsspec URL), or None when it lies elsewhere."""
    base, place = (_full(value).rstrip("/") + "/" for value in (root, file.url))
    return place[len(base) :].rstrip("/") if place.startswith(base) else None


def _full(place: str) -> str:
    if is_remote(place):
        return place
    return os.path.abspath(place.removeprefix("file://"))


def _expand(pattern: str) -> list[str]:
    import fsspec

    fs, path = fsspec.core.url_to_fs(pattern)
    if _MAGIC & set(path):
        paths = [item for item in fs.glob(path) if not fs.isdir(item)]
    elif fs.isdir(path):
        paths = fs.find(path)
    else:
        paths = [path] if fs.exists(path) else []
    return [str(fs.unstrip_protocol(item)) if is_remote(pattern) else str(item) for item in paths]


def _named(urls: Sequence[str]) -> list[InputFile]:
    folders = [url.split("/")[:-1] for url in urls]
    shared = sum(1 for _ in takewhile(lambda level: len(set(level)) == 1, zip(*folders, strict=False)))
    return [InputFile("/".join(url.split("/")[shared:]), url) for url in urls]
