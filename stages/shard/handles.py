"""Open files for positioned reads, kept per process."""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path
from threading import Lock
from typing import Any

_MOST = 128


class Handles:
    """Descriptors of recently read files.

    Reads are positioned (`pread`), so threads and forked processes may share a descriptor; a pickled copy opens its
    own.
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
        with self._lock:  # also over the read: another thread must not close the descriptor meanwhile
            data = os.pread(self._descriptor(str(path)), length, offset)
        if len(data) != length:
            raise EOFError(f"{path}: {length} bytes expected at offset {offset}, but the file ends after {len(data)}")
        return data

    def _descriptor(self, path: str) -> int:
        descriptor = self._open.pop(path, None)
        if descriptor is None:
            descriptor = os.open(path, os.O_RDONLY)
            if len(self._open) >= _MOST:
                os.close(self._open.popitem(last=False)[1])
        self._open[path] = descriptor
        return descriptor
