"""Reads byte ranges of remote files through a local cache of bounded size, shared by all processes of a node."""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from stages.base.contract import UserError

#: Bytes that are fetched and evicted together.
PAGE_BYTES = 16 << 20

_DEFAULT_GB = 50.0
_TOUCH_SECONDS = 1.0


class PageCache:
    """Pages of files in a folder, the least recently used evicted first.

    A page is fetched by one process while the others that need it wait. Together they never store more than the bound,
    except for pages that are being fetched. Partial pages of a killed process are reused or removed.
    """

    def __init__(self, folder: Path, bound: int, page_bytes: int = PAGE_BYTES) -> None:
        """`bound`: most bytes of all pages."""
        self.folder = folder
        self.bound = bound
        self.page_bytes = page_bytes

    def read(self, key: str, size: int, offset: int, length: int, fetch: Callable[[int, int], bytes]) -> bytes:
        """Bytes [offset, offset + length) of a file of `size` bytes, fewer at its end.

        `key` names the file and its version; ``fetch(start, stop)`` returns exactly those bytes of it.
        """
        stem = hashlib.sha256(key.encode()).hexdigest()[:32]
        stop = min(size, offset + length)
        pieces = []
        while offset < stop:
            number = offset // self.page_bytes
            first = number * self.page_bytes
            last = min(first + self.page_bytes, size)
            end = min(stop, last)
            pieces.append(self._piece(f"{stem}-{number:06d}", offset - first, end - offset, first, last, fetch))
            offset = end
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def held(self) -> int:
        """Bytes of all pages currently in the folder."""
        return sum(size for _, size, _ in self._pages())

    def _piece(
        self, name: str, offset: int, length: int, first: int, last: int, fetch: Callable[[int, int], bytes]
    ) -> bytes:
        path = self.folder / f"{name}.page"
        while True:
            try:
                with open(path, "rb", buffering=0) as page:
                    data = os.pread(page.fileno(), length, offset)
                    status = os.fstat(page.fileno())
            except FileNotFoundError:
                self._fill(path, first, last, fetch)
                continue  # and again, should it be evicted before it is opened
            if time.time() - status.st_mtime > _TOUCH_SECONDS:
                with suppress(FileNotFoundError):
                    os.utime(path)
            if len(data) == length:
                return data
            with suppress(FileNotFoundError):  # truncated from outside, e.g. by a full disk at a crash
                path.unlink()

    def _fill(self, path: Path, first: int, last: int, fetch: Callable[[int, int], bytes]) -> None:
        partial = path.with_suffix(".part")
        with _locked(partial) as descriptor:
            try:
                if path.exists():  # the previous holder of the lock fetched it
                    return
                data = fetch(first, last)
                os.truncate(descriptor, 0)
                with open(descriptor, "wb", closefd=False) as out:
                    out.write(data)
                self._admit(partial, path, len(data))
            finally:
                partial.unlink(missing_ok=True)

    def _admit(self, partial: Path, path: Path, size: int) -> None:
        """Evict pages until the new one fits, then move it into place."""
        with _locked(self.folder / "lock"):
            pages = sorted(self._pages())
            held = sum(bytes_ for _, bytes_, _ in pages)
            for _, bytes_, victim in pages:
                if held + size <= self.bound:
                    break
                victim.unlink(missing_ok=True)
                held -= bytes_
            for left in self.folder.glob("*.part"):
                if left != partial:
                    _remove_abandoned(left)
            os.replace(partial, path)

    def _pages(self) -> Iterator[tuple[float, int, Path]]:
        """Time of last use, bytes and path of each page."""
        with suppress(FileNotFoundError), os.scandir(self.folder) as entries:
            for entry in entries:
                if entry.name.endswith(".page"):
                    with suppress(FileNotFoundError):
                        status = entry.stat()
                        yield status.st_mtime, status.st_size, Path(entry.path)


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    """Hold a file's lock, which the kernel releases if the process dies; yields its descriptor."""
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if _is_named(path, descriptor):
                yield descriptor
                return
        finally:
            os.close(descriptor)


def _is_named(path: Path, descriptor: int) -> bool:
    """Whether a path still names an open file, which may have been renamed or removed while waiting for its lock."""
    try:
        return os.stat(path).st_ino == os.fstat(descriptor).st_ino
    except FileNotFoundError:
        return False


def _remove_abandoned(partial: Path) -> None:
    with suppress(FileNotFoundError):
        descriptor = os.open(partial, os.O_RDWR)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            partial.unlink()
        except BlockingIOError:  # another process is fetching it
            return
        finally:
            os.close(descriptor)


def cache_folder() -> Path:
    """Folder for local copies of remote files: `PAIRMILL_CACHE`, or `~/.cache/pairmill`."""
    return Path(os.environ.get("PAIRMILL_CACHE") or Path.home() / ".cache" / "pairmill")


def page_cache() -> PageCache:
    """The node's cache, bounded by `PAIRMILL_CACHE_GB`. Raises UserError for an invalid bound."""
    value = os.environ.get("PAIRMILL_CACHE_GB", "") or str(_DEFAULT_GB)
    least = 2 * PAGE_BYTES
    try:
        bound = float(value) * 1e9
    except ValueError:
        bound = 0.0
    if not least <= bound < 1e18:
        raise UserError(
            f"PAIRMILL_CACHE_GB={value}: not a valid bound for the cache of remote shards; set a number of gigabytes, "
            f"at least {least / 1e9:.3f}"
        )
    return PageCache(cache_folder() / "pages", int(bound))
