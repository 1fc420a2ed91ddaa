"""Known outcomes of a partition: a journal of this run that survives a kill, and the artifact of the previous pass."""

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

from stages.base.artifact import Artifact
from stages.download.attempts import FetchedImage
from stages.download.image import VerifiedImage
from stages.download.outcome import Failure, Reason


@dataclass(frozen=True)
class _Region:
    """A file with images in it."""

    descriptor: int

    def get(self, start: int, length: int) -> bytes:
        """`length` bytes at offset `start`; fewer at the end of the file."""
        data = os.pread(self.descriptor, length, start)
        while len(data) < length and (more := os.pread(self.descriptor, length - len(data), start + len(data))):
            data += more  # one pread returns at most 2 GiB
        return data


class Journal:
    """A folder with `images` (bytes end to end) and `journal` (one line per outcome). Thread-safe.

    Reopened after a kill, it still has everything that was complete, in :attr:`outcomes`. If two processes open one
    folder (a worker that was presumed dead may be alive), the second works in a temporary one.
    """

    def __init__(self, folder: Path, spare: Path) -> None:
        """`folder` may exist; `spare` is a folder for a temporary one."""
        self._lock = threading.Lock()
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._journal = os.open(folder / "journal", os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            fcntl.flock(self._journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # locked by another process, or a file system without locks
            os.close(self._journal)
            self._folder = Path(tempfile.mkdtemp(dir=spare))
            self._journal = os.open(self._folder / "journal", os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        self._images = os.open(self._folder / "images", os.O_RDWR | os.O_CREAT, 0o600)
        self._region = _Region(self._images)
        self.outcomes: dict[str, FetchedImage | Failure] = {}
        """Outcomes of an interrupted run by image uid; transient failures are left out."""
        self._recover()
        self._end = os.fstat(self._images).st_size

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Delete the folder, unless the block failed: then the next run resumes from it."""
        os.close(self._images)
        os.close(self._journal)
        if kind is None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def store(
        self,
        uid: str,
        data: bytes,
        picture: VerifiedImage,
        sha256: str,
        source_sha256: str,
        hash_ok: bool | None = None,
    ) -> FetchedImage:
        """Store an image's bytes (`picture` has none) and enter it in the journal."""
        with self._lock:
            start = self._end
            self._end += len(data)
        view = memoryview(data)
        done = 0
        while done < len(view):
            done += os.pwrite(self._images, view[done:], start + done)
        about = [picture.format, picture.width, picture.height, picture.orientation]
        self._enter([uid, start, len(data), *about, sha256, source_sha256, hash_ok])
        return FetchedImage(self._region, start, picture, len(data), sha256, source_sha256, hash_ok)

    def fail(self, uid: str, failure: Failure) -> None:
        """Enter a final failure in the journal; ignore a transient one."""
        if not failure.transient and failure.status != Reason.FORGOTTEN:
            self._enter([uid, failure.status, failure.detail])

    def _enter(self, line: list[Any]) -> None:
        # An image's bytes are written before its line, so after a kill every complete line is valid.
        entry = memoryview(json.dumps(line).encode() + b"\n")
        with self._lock:
            start = os.fstat(self._journal).st_size
            done = 0
            try:
                while done < len(entry):
                    done += os.write(self._journal, entry[done:])
            except OSError:
                # A disk that is almost full takes a part of the line: the next one must not continue it.
                os.ftruncate(self._journal, start)
                raise

    def _recover(self) -> None:
        content = os.pread(self._journal, os.fstat(self._journal).st_size, 0)
        for line in content.splitlines():
            try:
                uid, *entry = json.loads(line)
            except ValueError:  # a line truncated by a kill
                continue
            if len(entry) == 2:
                self.outcomes[uid] = Failure(*entry)
            elif (stored := self._intact(entry)) is not None:
                self.outcomes[uid] = stored
        if content and not content.endswith(b"\n"):
            os.write(self._journal, b"\n")

    def _intact(self, entry: list[Any]) -> FetchedImage | None:
        start, length, form, width, height, orientation, sha256, source_sha256, hash_ok = entry
        # After a crash of the machine, rather than of the process, a line may be on disk without its bytes.
        if hashlib.sha256(self._region.get(start, length)).hexdigest() != sha256:
            return None
        picture = VerifiedImage(b"", form, width, height, orientation)
        return FetchedImage(self._region, start, picture, length, sha256, source_sha256, hash_ok)


class PreviousPass:
    """One partition of the artifact of an earlier pass, whose outcomes `--retry-failed` takes over."""

    def __init__(self, artifact: Artifact, partition: str) -> None:
        import pyarrow.parquet as pq

        with artifact.open(f"attempts-{partition}.parquet") as file:
            rows = pq.read_table(file).to_pylist()
        self._tar = open(artifact.path(f"raw-{partition}.tar"), "rb")  # noqa: SIM115 - closed by __exit__
        self.outcomes: dict[str, FetchedImage | Failure] = {}
        """Outcomes by image uid; transient failures are left out."""
        for row in rows:
            outcome: FetchedImage | Failure
            if row["status"] == Reason.SUCCESS:
                picture = VerifiedImage(b"", row["format"], row["width"], row["height"], row["exif_orientation"])
                digests = row["sha256"], row["source_sha256"]
                outcome = FetchedImage(self, row["offset"], picture, row["length"], *digests, row["hash_ok"])
            else:
                outcome = Failure(row["status"], row["error"] or "")
                if outcome.transient:
                    continue
            self.outcomes[row["image_uid"]] = outcome

    def __enter__(self) -> PreviousPass:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tar.close()

    def get(self, start: int, length: int) -> bytes:
        """`length` bytes at offset `start` of the earlier pass's shard."""
        return os.pread(self._tar.fileno(), length, start)
