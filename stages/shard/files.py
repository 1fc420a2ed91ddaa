"""The files of a folder of shards, local or in an object store: positioned reads, sizes, small files as a whole."""

from __future__ import annotations

import hashlib
import io
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import IO, Any, Protocol, TypeVar

from stages.base.artifact import is_remote
from stages.base.contract import UserError
from stages.shard.pages import PageCache, cache_folder, page_cache

#: File descriptors open at a time.
_MOST_OPEN = 128
_TRIES = 3
_PAUSE_SECONDS = 0.5

T = TypeVar("T")


class ShardFiles(Protocol):
    """Read access to a folder. All methods raise FileNotFoundError for a name that it does not contain."""

    def read(self, name: str, offset: int, length: int) -> bytes:
        """`length` bytes of a file. Raises EOFError when the file is shorter."""
        ...

    def open(self, name: str) -> IO[bytes]:
        """A seekable stream over a file."""
        ...

    def size(self, name: str) -> int:
        """Size of a file in bytes, without reading it."""
        ...

    def whole(self, name: str) -> Path:
        """A local path of a complete file."""
        ...

    def names(self) -> Sequence[str]:
        """File names in the folder, sorted."""
        ...


def files_of(where: str) -> ShardFiles:
    """The files of a folder or fsspec URL."""
    return RemoteFiles(where) if is_remote(where) else LocalFiles(where.removeprefix("file://"))


class Handles:
    """Descriptors of recently read files, for positioned reads.

    Reads use `pread`, so threads and forked processes may share a descriptor; a pickled copy opens its own.
    """

    def __init__(self) -> None:
        self._open: OrderedDict[str, int] = OrderedDict()
        self._lock = Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        Handles.__init__(self)

    def __del__(self) -> None:
        for descriptor in getattr(self, "_open", {}).values():
            os.close(descriptor)

    def read(self, path: str | Path, offset: int, length: int) -> bytes:
        """`length` bytes at `offset`. Raises EOFError naming both when the file is shorter."""
        with self._lock:  # held during the read, so that no other thread closes the descriptor
            data = os.pread(self._descriptor(str(path)), length, offset)
        if len(data) != length:
            raise EOFError(f"{path}: {length} bytes expected at offset {offset}, but the file ends after {len(data)}")
        return data

    def _descriptor(self, path: str) -> int:
        descriptor = self._open.pop(path, None)
        if descriptor is None:
            descriptor = os.open(path, os.O_RDONLY)
            if len(self._open) >= _MOST_OPEN:
                os.close(self._open.popitem(last=False)[1])
        self._open[path] = descriptor
        return descriptor


class LocalFiles:
    """A local or mounted folder."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._handles = Handles()

    def read(self, name: str, offset: int, length: int) -> bytes:
        """`length` bytes of a file."""
        return self._handles.read(f"{self._folder}/{name}", offset, length)

    def open(self, name: str) -> IO[bytes]:
        """The open file."""
        return open(f"{self._folder}/{name}", "rb")

    def size(self, name: str) -> int:
        """Size of a file in bytes."""
        return os.stat(f"{self._folder}/{name}").st_size

    def whole(self, name: str) -> Path:
        """Path of the file itself."""
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
    """A folder at an fsspec URL. A pickled copy keeps the URL only and opens its own connections.

    Ranges of shards are kept in the node's page cache (`stages/shard/pages.py`). A file is identified by its size and
    its ETag or modification time, requested once per process, so pages of a file that was overwritten are never used.
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
        """`length` bytes of a file, read through the cache."""
        size, version = self._info(name)
        if offset + length > size:
            raise EOFError(f"{length} bytes expected at offset {offset}, but the file ends after {size}")
        key = f"{self._url}/{name} {size} {version}"
        return self._cache.read(key, size, offset, length, lambda start, stop: self._fetch(name, start, stop))

    def open(self, name: str) -> IO[bytes]:
        """A stream over the cache."""
        return io.BufferedReader(_Stream(self, name, self.size(name)), 1 << 20)

    def size(self, name: str) -> int:
        """Size of a file in bytes, requested once."""
        return self._info(name)[0]

    def whole(self, name: str) -> Path:
        """Fetch a small file (index, dataset.json), unless its current version is already cached."""
        size, version = self._info(name)
        folder = cache_folder() / "files" / _digest(f"{self._url}/{name}")
        path = folder / _digest(f"{size} {version}")
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            partial = folder / f"{os.getpid()}.part"
            self._request(name, lambda files, at: files.get_file(at, str(partial)))
            if partial.stat().st_size != size:
                raise OSError(f"{self._url}/{name}: {partial.stat().st_size} bytes of {size} received; try again")
            os.replace(partial, path)
            for old in folder.iterdir():  # a reader that has it mapped can go on using it
                if old != path and old.suffix != ".part":
                    old.unlink(missing_ok=True)
        return path

    def names(self) -> Sequence[str]:
        """Names of files, without folders."""
        listed: list[str] = self._request("", lambda files, at: files.ls(at, detail=False))
        return sorted({path.rstrip("/").rsplit("/", 1)[-1].partition("?")[0] for path in listed})

    def _info(self, name: str) -> tuple[int, str]:
        known = self._infos.get(name)
        if known is None:
            info = self._request(name, lambda files, at: files.info(at))
            if info.get("size") is None:
                raise OSError(f"{self._url}/{name}: the server does not report a size")
            # A store that reports no version is assumed to be immutable, as artifacts are.
            marks = ("ETag", "etag", "md5Hash", "content_md5", "mtime", "LastModified", "last_modified", "created")
            version = next((f"{mark} {info[mark]}" for mark in marks if info.get(mark)), "")
            known = self._infos[name] = (int(info["size"]), version)
        return known

    def _fetch(self, name: str, start: int, stop: int) -> bytes:
        data: bytes = self._request(name, lambda files, at: files.cat_file(at, start=start, end=stop))
        if len(data) != stop - start:
            raise OSError(f"{self._url}/{name}: {len(data)} of {stop - start} bytes received at offset {start}")
        return data

    def _request(self, name: str, call: Callable[[Any, str], T]) -> T:
        """The result of a call to the store, which is repeated unless it fails because there is no such file."""
        import fsspec

        url = f"{self._url}/{name}" if name else f"{self._url}/"
        for attempt in range(1, _TRIES + 1):
            try:
                files, at = fsspec.core.url_to_fs(url)
                return call(files, at)
            except (FileNotFoundError, NotADirectoryError):
                raise FileNotFoundError(f"{url}: no such object") from None
            except ImportError as error:
                raise UserError(f"{url}: {error}; install the package that this store needs") from None
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
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        length = max(0, min(len(buffer), self._size - self._position))
        if length:
            buffer[:length] = self._files.read(self._name, self._position, length)
            self._position += length
        return length


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
