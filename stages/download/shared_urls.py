"""URLs that several sources list: the partition that came first fetches them, the others take over its outcomes.

Every partition of a source that is not private enters the URLs it is going to fetch in a folder of the workspace's
cache. Entries are numbered under a lock, so of any two partitions exactly one knows of the other: the later one. It
leaves the URLs that both list until the earlier one has ended, which never waits for a later one.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from stages.base.artifact import canonical_json, is_remote
from stages.base.contract import NotFingerprinted, StageContext
from stages.base.external_files import WORLD_ROLES
from stages.download.config import DownloadConfig
from stages.download.image import VerifiedImage
from stages.download.outcome import Failure, Reason
from stages.download.url import request_url

if TYPE_CHECKING:
    import numpy as np

#: Seconds for which outcomes are taken over: as long as a robots.txt may be cached (RFC 9309, section 2.4).
MAX_AGE = 24 * 3600.0
#: Seconds between looks at whether another partition has ended.
_POLL_SECONDS = 0.2
#: Errors of `flock` on a file system that has no locks.
_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL})
_ENTRY = re.compile(r"(\d{9})\.json")
#: Outcomes that depend on more than the URL: on what a source lists about it, or on when it was asked for.
_OWN = frozenset({Reason.HASH_MISMATCH, Reason.FORGOTTEN})


@dataclass(frozen=True)
class SharedImage:
    """An image that another source fetched."""

    data: bytes
    """The bytes as stored."""
    picture: VerifiedImage
    sha256: str
    source_sha256: str


def settings_key(config: DownloadConfig, context: StageContext) -> str:
    """What sources must have in common to share outcomes: every setting that may change one, and the worlds that are
    served to them."""
    other = {name for name, field in type(config).model_fields.items() if NotFingerprinted in field.metadata}
    settings = config.model_dump(mode="json", exclude=other | {"name", "source", "allow_private_hosts"})
    settings["allow_private_hosts"] = list(config.private_hosts)
    worlds = [artifact.fingerprint for role in WORLD_ROLES for artifact in context.inputs.get(role, ())]
    return hashlib.sha256(canonical_json([settings, worlds]).encode()).hexdigest()[:16]


@contextlib.contextmanager
def shared_urls(
    config: DownloadConfig, context: StageContext, partition: str, urls: Mapping[str, int]
) -> Iterator[UrlEntry | None]:
    """The entry of one partition while it runs; None where nothing is shared.

    `urls`: normalised URL -> number of the image. Nothing is shared by private sources, nor in a workspace without a
    common file system.
    """
    places = (context.cache, context.artifact)
    if config.source.private or not urls or not all(places) or any(map(is_remote, places)):
        yield None
        return
    folder = Path(context.cache) / "urls" / settings_key(config, context)
    about = {
        "source": config.name,
        "artifact": context.artifact,
        "partition": partition,
        "out": str(context.out),
    }
    listing = UrlEntry(folder, about, urls)
    try:
        listing.enter()
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        yield None
        return
    try:
        yield listing
    except BaseException:
        listing.withdraw()
        raise
    finally:
        listing.unlock()


class UrlEntry:
    """A partition's entry: `NNNNNNNNN.json`, locked while it runs, and the digests of its URLs."""

    def __init__(self, folder: Path, about: Mapping[str, str], urls: Mapping[str, int]) -> None:
        self._folder = folder
        self._about = about
        self._urls = urls
        self._digests = _digests(urls)
        self._earlier: list[Path] = []
        self._entry: Path = folder
        self._held: IO[str] | None = None

    def enter(self) -> None:
        """Enter the URLs, and learn which partitions were earlier. Raises OSError without locks or space."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with open(self._folder / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            others = sorted(path for path in self._folder.iterdir() if _ENTRY.fullmatch(path.name))
            self._earlier = [path for path in others if not self._removed(path)]
            number = int(others[-1].stem) + 1 if others else 0
            self._entry = self._folder / f"{number:09}.json"
            self._digests.tofile(self._entry.with_suffix(".urls"))
            partial = self._folder / f"{number:09}.part"
            self._held = open(partial, "w", encoding="utf-8")  # noqa: SIM115 - open as long as the lock is held
            fcntl.flock(self._held, fcntl.LOCK_EX)
            json.dump(self._about, self._held)
            self._held.flush()
            os.replace(partial, self._entry)

    def withdraw(self) -> None:
        """Remove the entry of a partition that failed."""
        _remove(self._entry)

    def unlock(self) -> None:
        """Let others take over what this partition got."""
        if self._held is not None:
            self._held.close()

    def elsewhere(self) -> set[int]:
        """Numbers of the images whose URLs an earlier partition of another source lists."""
        return {number for _, numbers in self._common for number in numbers.values()}

    def outcomes(self) -> Iterator[tuple[int, SharedImage | Failure]]:
        """What other sources got for those images, as far as it can be taken over; waits for partitions that run."""
        for entry, numbers in self._common:
            while _is_running(entry):
                time.sleep(_POLL_SECONDS)
            with contextlib.suppress(FileNotFoundError):
                yield from _outcomes(json.loads(entry.read_text("utf-8")), numbers)

    @cached_property
    def _common(self) -> list[tuple[Path, dict[str, int]]]:
        """Earlier entries of other sources, with the URLs in common and the numbers of their images here."""
        import numpy as np

        by_digest = dict(zip(_digests(self._urls, in_order=False).tolist(), self._urls.items(), strict=True))
        common = []
        for entry in self._earlier:
            try:
                if json.loads(entry.read_text("utf-8"))["source"] == self._about["source"]:
                    continue
                other = np.fromfile(entry.with_suffix(".urls"), np.uint64)
            except FileNotFoundError:  # it failed, or was cleared away
                continue
            both = np.intersect1d(self._digests, other, assume_unique=True).tolist()
            if both:
                common.append((entry, dict(by_digest[digest] for digest in both)))
        return common

    def _removed(self, entry: Path) -> bool:
        """Remove an entry that is too old, or that this partition left when it was killed; whether it did."""
        about = json.loads(entry.read_text("utf-8"))
        mine = all(about[key] == self._about[key] for key in ("artifact", "partition"))
        if (mine or time.time() - entry.stat().st_mtime > MAX_AGE) and not _is_running(entry):
            _remove(entry)
            return True
        return False


def _digests(urls: Mapping[str, int], in_order: bool = True) -> np.ndarray:
    """64-bit digests of URLs, uint64 [urls]; two URLs with the same one are told apart by their text later."""
    import numpy as np

    joined = b"".join(hashlib.blake2b(url.encode(), digest_size=8).digest() for url in urls)
    digests = np.frombuffer(joined, np.uint64)
    return np.unique(digests) if in_order else digests


def _is_running(entry: Path) -> bool:
    """Whether the process of an entry holds its lock."""
    try:
        with open(entry, encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


def _remove(entry: Path) -> None:
    for path in (entry, entry.with_suffix(".urls")):
        path.unlink(missing_ok=True)


def _outcomes(about: Mapping[str, Any], numbers: Mapping[str, int]) -> Iterator[tuple[int, SharedImage | Failure]]:
    """The outcomes of a partition that has ended, for some URLs. Raises FileNotFoundError if its files are gone."""
    import pyarrow.parquet as pq

    table = pq.read_table(_file(about, f"attempts-{about['partition']}.parquet"))
    with open(_file(about, f"raw-{about['partition']}.tar"), "rb") as tar:
        for batch in table.to_batches():
            for row in batch.to_pylist():
                number = numbers.get(_normalised(row["url"]))
                if number is None or row["status"] in _OWN:
                    continue
                if row["status"] != Reason.SUCCESS:
                    yield number, Failure(row["status"], row["error"] or "")
                    continue
                data = os.pread(tar.fileno(), row["length"], row["offset"])
                if hashlib.sha256(data).hexdigest() == row["sha256"]:
                    picture = VerifiedImage(b"", row["format"], row["width"], row["height"], row["exif_orientation"])
                    yield number, SharedImage(data, picture, row["sha256"], row["source_sha256"])


def _file(about: Mapping[str, Any], name: str) -> Path:
    """A file of a partition: in the artifact, or still where the partition wrote it."""
    folders = [Path(about["artifact"]), Path(about["out"])]
    for folder in (*folders, folders[0]):  # it may be moved in between
        if (folder / name).exists():
            return folder / name
    raise FileNotFoundError(name)


def _normalised(url: str | None) -> str:
    try:
        return request_url(url or "")
    except Failure:
        return ""
