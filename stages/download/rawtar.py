"""Raw shards: bytes that arrive in any order, written to a tar in one."""

from __future__ import annotations

import io
import os
import tarfile
import tempfile
import threading
from collections.abc import Iterable
from pathlib import Path

_HEADER = 512  # a ustar header; names here are far below its 100 characters, so there is never a second block


class Spool:
    """An unnamed temporary file that holds arrived images until their turn comes. Thread-safe."""

    def __init__(self, folder: Path) -> None:
        """The file lies in `folder` and vanishes with :meth:`close`, or with the process."""
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by close()
        self._lock = threading.Lock()
        self._end = 0

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def put(self, data: bytes) -> int:
        """Store bytes; returns where."""
        with self._lock:
            start = self._end
            self._end += len(data)
        view = memoryview(data)
        done = 0
        while done < len(view):
            done += os.pwrite(self._file.fileno(), view[done:], start + done)
        return start

    def get(self, start: int, length: int) -> bytes:
        """Bytes that :meth:`put` stored at `start`."""
        data = os.pread(self._file.fileno(), length, start)
        while len(data) < length:  # one pread returns at most 2 GiB
            data += os.pread(self._file.fileno(), length - len(data), start + len(data))
        return data

    def close(self) -> None:
        """Drop everything."""
        self._file.close()


def write_tar(path: Path, members: Iterable[tuple[str, bytes]]) -> list[int]:
    """Write a ustar file with fixed headers; returns the offset of each member's data, in bytes."""
    offsets = []
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)  # mtime, uid and gid are 0 and the owner's names empty unless set
            info.size = len(data)
            info.mode = 0o644
            offsets.append(tar.offset + _HEADER)
            tar.addfile(info, io.BytesIO(data))
    return offsets
