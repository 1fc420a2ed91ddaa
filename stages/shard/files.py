"""The files of a folder of shards, here or in an object store: positioned reads, sizes, small files whole."""

from __future__ import annotations

import hashlib
import io
import os
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import IO, Any, Protocol, TypeVar

from stages.base.artifact import is_remote
from stages.base.contract import UserError
from stages.shard.handles import Handles
from stages.shard.pages import PageCache, cache_folder, page_cache

_TRIES = 3
_PAUSE_SECONDS = 0.5

T = TypeVar("T")


class Files(Protocol):
    """Read access to a folder. All methods raise FileNotFoundError for a name it does not hold."""

    def read(self, name: str, offset: int, length: int) -> bytes:
        """`length` bytes of a file. Raises EOFError when it is shorter."""
        ...

    def open(self, name: str) -> IO[bytes]:
        """A seekable stream over a file."""
        ...

    def size(self, name: str) -> int:
        """A file's bytes, without reading them."""
        ...

    def whole(self, name: str) -> Path:
        """A local path of a whole file."""
        ...

    def names(self) -> Sequence[str]:
        """File names in the folder, sorted."""
        ...


def files_of(where: str) -> Files:
    """The files of a folder or fsspec URL."""
    return RemoteFiles(where) if is_remote(where) else LocalFiles(where.removeprefix("file://"))


class LocalFiles:
    """A folder of this machine, or one that is mounted."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._handles = Handles()

    def read(self, name: str, offset: int, length: int) -> bytes:
        """`length` bytes of a file."""
        return self._handles.read(f"{self._folder}/{name}", offset, length)

    def open(self, name: str) -> IO[bytes]:
        """The file, opened."""
        return open(f"{self._folder}/{name}", "rb")

    def size(self, name: str) -> int:
        """A file's bytes."""
        return os.stat(f"{self._folder}/{name}").st_size

    def whole(self, name: str) -> Path:
        """Where it lies."""
        path = Path(self._folder, name)
        path.stat()
        return path

    def names(self) -> Sequence[str]:
        """Names of files, without folders."""
        try:
            with os.scandir(self._folder) as entries:
                return sorted(entry.name for entry in entries if entry.is_file())
        except NotADirectoryError:
            raise FileNotFoundError(self._folder) from None


class RemoteFiles:
    """A folder at an fsspec URL. Pickled, it takes the URL along and opens connections of its own.

    Ranges of shards are kept in the node's page cache (`stages/shard/pages.py`). A file is known by its size and ETag
    or time, which are asked for once per process: of a file written anew no old page is used.
    """

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        self._infos: dict[str, tuple[int, str]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"_url": self._url, "_infos": {}}

    @cached_property
    def _cache(self) -> PageCache:
        return page_cache()

    def read(self, name: str, offset: int, length: int) -> bytes:
        """`length` bytes of a file, by way of the cache."""
        size, version = self._info(name)
        if offset + length > size:
            raise EOFError(f"{length} bytes expected at offset {offset}, but the file ends after {size}")
        key = f"{self._url}/{name} {size} {version}"
        return self._cache.read(key, size, offset, length, lambda start, stop: self._fetch(name, start, stop))

    def open(self, name: str) -> IO[bytes]:
        """A stream over the cache."""
        return io.BufferedReader(_Stream(self, name, self.size(name)), 1 << 20)

    def size(self, name: str) -> int:
        """A file's bytes, asked for once."""
        return self._info(name)[0]

    def whole(self, name: str) -> Path:
        """Fetch a small file (index, dataset.json), unless its present version was fetched before."""
        size, version = self._info(name)
        folder = cache_folder() / "files" / _digest(f"{self._url}/{name}")
        path = folder / _digest(f"{size} {version}")
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            partial = folder / f"{os.getpid()}.part"
            self._asked(name, lambda files, at: files.get_file(at, str(partial)))
            if partial.stat().st_size != size:
                raise OSError(f"{self._url}/{name}: {partial.stat().st_size} bytes came of {size}")
            os.replace(partial, path)
            for old in folder.iterdir():  # a reader that has it mapped keeps it
                if old != path and old.suffix != ".part":
                    old.unlink(missing_ok=True)
        return path

    def names(self) -> Sequence[str]:
        """Names of files, without folders."""
        listed: list[str] = self._asked("", lambda files, at: files.ls(at, detail=False))
        return sorted({path.rstrip("/").rsplit("/", 1)[-1].partition("?")[0] for path in listed})

    def _info(self, name: str) -> tuple[int, str]:
        known = self._infos.get(name)
        if known is None:
            info = self._asked(name, lambda files, at: files.info(at))
            if info.get("size") is None:
                raise OSError(f"{self._url}/{name}: the server does not say how long it is")
            # One that names no version is taken for immutable, as artifacts are.
            marks = ("ETag", "etag", "md5Hash", "content_md5", "mtime", "LastModified", "last_modified", "created")
            version = next((f"{mark} {info[mark]}" for mark in marks if info.get(mark)), "")
            known = self._infos[name] = (int(info["size"]), version)
        return known

    def _fetch(self, name: str, start: int, stop: int) -> bytes:
        data: bytes = self._asked(name, lambda files, at: files.cat_file(at, start=start, end=stop))
        if len(data) != stop - start:
            raise OSError(f"{self._url}/{name}: {len(data)} bytes came of {stop - start} asked for at offset {start}")
        return data

    def _asked(self, name: str, ask: Callable[[Any, str], T]) -> T:
        """What the store answers; asked again where it fails for another reason than that there is no such file."""
        import fsspec

        url = f"{self._url}/{name}" if name else f"{self._url}/"
        for attempt in range(1, _TRIES + 1):
            try:
                files, at = fsspec.core.url_to_fs(url)
                return ask(files, at)
            except (FileNotFoundError, NotADirectoryError):
                raise FileNotFoundError(f"{url}: no such object") from None
            except ImportError as error:
                raise UserError(f"{url}: {error}; install the package that this kind of store needs") from None
            except Exception as error:
                if attempt == _TRIES:
                    raise OSError(f"{url}: {type(error).__name__}: {' '.join(str(error).split())}") from error
                time.sleep(_PAUSE_SECONDS * attempt)
        raise AssertionError("unreachable")


class _Stream(io.RawIOBase):
    """A remote file as a stream."""

    def __init__(self, files: RemoteFiles, name: str, size: int) -> None:
        self._files = files
        self._name = name
        self._size = size
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        self._place = max(0, base + offset)
        return self._place

    def readinto(self, buffer: Any) -> int:
        length = max(0, min(len(buffer), self._size - self._place))
        if length:
            buffer[:length] = self._files.read(self._name, self._place, length)
            self._place += length
        return length


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
