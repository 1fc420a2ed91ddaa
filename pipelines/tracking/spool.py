"""The spool: one file of events per invocation, appended by the driver, read by whoever delivers.

<home>/tracking/<invocation>.jsonl   the driver holds its flock for as long as it lives
<home>/tracking/<invocation>.lock    held by the one process that delivers that file
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

FOLDER = "tracking"


def spool_path(home: Path, invocation: str) -> Path:
    """The event file of an invocation."""
    return home / FOLDER / f"{invocation}.jsonl"


class Spool:
    """The writing end. Its lock tells readers that the driver is alive: the kernel drops it however the driver ends."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        # Locked before it has its name, or a reader could take it for a dead driver's.
        unborn = path.with_suffix(".new")
        self._file: TextIO = open(unborn, "a", encoding="utf-8")  # noqa: SIM115 (open as long as the driver lives)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        os.replace(unborn, path)

    def append(self, event: str, **fields: Any) -> None:
        """Write one event (`time` in ms since the epoch) so that it outlives a kill of this process."""
        line = {"event": event, "time": time.time_ns() // 1_000_000, **fields}
        self._file.write(json.dumps(line, default=str) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Let readers know that no more will come."""
        self._file.close()


class SpoolReader:
    """The reading end: hands out whole events in order, as they come."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = open(path, encoding="utf-8")  # noqa: SIM115 (closed by `close`)
        self._rest = ""

    def new_events(self) -> Iterator[dict[str, Any]]:
        """Events appended since the last call; half a line (a kill while writing) is left for later, or for ever."""
        lines = (self._rest + self._file.read()).split("\n")
        self._rest = lines.pop()
        for line in lines:
            yield json.loads(line)

    def driver_lives(self) -> bool:
        """Whether the process that writes the file still holds it."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        fcntl.flock(self._file, fcntl.LOCK_UN)
        return False

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def pending(home: Path) -> list[str]:
    """Invocations with undelivered events, oldest first; a running one's among them."""
    return sorted(path.stem for path in (home / FOLDER).glob("*.jsonl"))


@contextlib.contextmanager
def delivery(home: Path, invocation: str, wait_seconds: float) -> Iterator[bool]:
    """Be the only one to deliver an invocation. Yields False when there is nothing left to deliver, or when another
    process is still at it after `wait_seconds`."""
    spool = spool_path(home, invocation)
    lock = spool.with_suffix(".lock")
    deadline = time.monotonic() + wait_seconds
    with open(lock, "a") as handle:
        while True:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            if time.monotonic() >= deadline:
                yield False
                return
            time.sleep(0.1)
        try:
            # Whoever had the lock before may have delivered and removed the spool.
            yield spool.exists()
        finally:
            if not spool.exists():
                lock.unlink(missing_ok=True)
