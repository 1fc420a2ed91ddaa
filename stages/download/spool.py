"""What a partition has so far: pictures that wait for their turn in the shard, and a journal that survives a kill."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from stages.download.attempts import Stored
from stages.download.image import Picture
from stages.download.outcome import Failure, Reason


@dataclass(frozen=True)
class _Region:
    """A file with pictures in it."""

    descriptor: int

    def get(self, start: int, length: int) -> bytes:
        """Bytes from `start` on; fewer where the file ends."""
        data = os.pread(self.descriptor, length, start)
        while len(data) < length and (more := os.pread(self.descriptor, length - len(data), start + len(data))):
            data += more  # one pread returns at most 2 GiB
        return data


class Spool:
    """A folder with `images` (bytes end to end) and `journal` (one line per outcome). Thread-safe.

    Opened again after a kill, it still has everything that was complete: :attr:`found`. Of two processes that open one
    folder (a worker taken for dead may not be) the second works in a temporary one.
    """

    def __init__(self, folder: Path, spare: Path) -> None:
        """`folder` may exist; `spare` is where a temporary one may be made."""
        self._lock = threading.Lock()
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._journal = os.open(folder / "journal", os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            fcntl.flock(self._journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # held by another, or a file system without locks
            os.close(self._journal)
            self._folder = Path(tempfile.mkdtemp(dir=spare))
            self._journal = os.open(self._folder / "journal", os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        self._images = os.open(self._folder / "images", os.O_RDWR | os.O_CREAT, 0o600)
        self._region = _Region(self._images)
        self.found: dict[str, Stored | Failure] = {}
        """Outcomes of an earlier try by image uid; failures that may pass are not among them."""
        self._recover()
        self._end = os.fstat(self._images).st_size

    def __enter__(self) -> Spool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Drop everything, unless the block failed: then the next try goes on from here."""
        os.close(self._images)
        os.close(self._journal)
        if kind is None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def store(
        self, uid: str, data: bytes, picture: Picture, sha256: str, source_sha256: str, hash_ok: bool | None = None
    ) -> Stored:
        """Keep a picture's bytes (`picture` comes without) and enter it in the journal."""
        with self._lock:
            start = self._end
            self._end += len(data)
        view = memoryview(data)
        done = 0
        while done < len(view):
            done += os.pwrite(self._images, view[done:], start + done)
        about = [picture.format, picture.width, picture.height, picture.orientation]
        self._enter([uid, start, len(data), *about, sha256, source_sha256, hash_ok])
        return Stored(self._region, start, picture, len(data), sha256, source_sha256, hash_ok)

    def fail(self, uid: str, failure: Failure) -> None:
        """Enter a failure in the journal, if it is final."""
        if not failure.transient and failure.status != Reason.FORGOTTEN:
            self._enter([uid, failure.status, failure.detail])

    def _enter(self, line: list[Any]) -> None:
        # The bytes of a picture are written before its line: a line that is there can be relied on after a kill.
        os.write(self._journal, json.dumps(line).encode() + b"\n")

    def _recover(self) -> None:
        held = os.pread(self._journal, os.fstat(self._journal).st_size, 0)
        for line in held.splitlines():
            try:
                uid, *entry = json.loads(line)
            except ValueError:  # the line that a kill cut short
                continue
            if len(entry) == 2:
                self.found[uid] = Failure(*entry)
            elif (stored := self._whole(entry)) is not None:
                self.found[uid] = stored
        if held and not held.endswith(b"\n"):
            os.write(self._journal, b"\n")

    def _whole(self, entry: list[Any]) -> Stored | None:
        start, length, form, width, height, orientation, sha256, source_sha256, hash_ok = entry
        # After a crash of the machine, and not only of the process, a line may have outlived its bytes.
        if hashlib.sha256(self._region.get(start, length)).hexdigest() != sha256:
            return None
        picture = Picture(b"", form, width, height, orientation)
        return Stored(self._region, start, picture, length, sha256, source_sha256, hash_ok)
