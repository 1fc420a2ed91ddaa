"""The spool: one file of events per invocation, appended by the driver and read by the process that delivers it.

<home>/tracking/<invocation>.jsonl   one JSON object per event; the driver holds an flock on it while it lives
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


def pending(home: Path) -> list[str]:
    """Invocations with undelivered events, oldest first; those still running included."""
    return sorted(path.stem for path in (home / FOLDER).glob("*.jsonl"))


class Spool:
    """The writing end. The kernel drops its lock however the driver ends, which is how a reader notices that."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        # Locked before it gets its name; otherwise a reader could take its driver for dead.
        unnamed = path.with_suffix(".new")
        self._file: TextIO = open(unnamed, "a", encoding="utf-8")  # noqa: SIM115 (open as long as the driver lives)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        os.replace(unnamed, path)

    def append(self, event: str, **fields: Any) -> None:
        """Write one event (with `time`, ms since the epoch) so that it survives a kill of this process."""
        line = {"event": event, "time": time.time_ns() // 1_000_000, **fields}
        self._file.write(json.dumps(line, default=str) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Release the lock: no more events will come."""
        self._file.close()


def read_events(spool: Path, offset: int = 0) -> tuple[list[dict[str, Any]], int]:
    """The whole events from a byte offset on, and the offset to go on from.

    An incomplete last line (the driver was killed while writing, or writes right now) is left for the next call.
    """
    with open(spool, "rb") as file:
        file.seek(offset)
        data = file.read()
    lines = data[: data.rfind(b"\n") + 1]
    return [json.loads(line) for line in lines.splitlines()], offset + len(lines)


def driver_alive(spool: Path) -> bool:
    """Whether the driver that writes a spool still holds it open; False if the file does not exist."""
    with contextlib.suppress(FileNotFoundError), open(spool) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@contextlib.contextmanager
def delivery_lock(spool: Path, wait_seconds: float) -> Iterator[bool]:
    """Be the only process that delivers a spool.

    Yields False if nothing is left to deliver, or if another process still delivers it after `wait_seconds`.
    """
    lock = spool.with_suffix(".lock")
    deadline = time.monotonic() + wait_seconds
    with open(lock, "a") as handle:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    yield False
                    return
                time.sleep(0.1)
        try:
            # The previous holder of the lock may have delivered and removed the spool.
            yield spool.exists()
        finally:
            if not spool.exists():
                lock.unlink(missing_ok=True)
