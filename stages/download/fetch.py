"""The bytes of one image: one request to the web, or a read from a local folder; typed failures."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

from stages.base.artifact import Artifact, is_remote
from stages.download.address import Dialer, host_of, request_url
from stages.download.client import Client, retry_after
from stages.download.config import DownloadConfig
from stages.download.optout import OptOut
from stages.download.outcome import Failure, Reason
from stages.download.robots import MAX_BYTES, Notices, shared_notices

_ACCEPT = "image/jpeg,image/png,image/webp,image/*;q=0.8,*/*;q=0.5"
#: RFC 9309, section 2.3.1.2: at least five redirects of a robots.txt are followed.
_NOTICE_REDIRECTS = 5


@dataclass(frozen=True)
class Moved:
    """A redirect: where the image is to be asked for next."""

    url: str


@dataclass(frozen=True)
class Web:
    """Makes the requests of one partition. Thread-safe."""

    client: Client
    dialer: Dialer
    notices: Notices
    opt_out: OptOut
    max_bytes: int

    def __call__(self, url: str) -> bytes | Moved:
        """The answer for a URL that `address.request_url` made and `notices` allow. Raises Failure."""
        answer = self.client.get(url, self.max_bytes, _ACCEPT, self.opt_out)
        if answer.location:
            return Moved(answer.location)
        if answer.status >= 300:
            wait = retry_after(answer.headers.get("Retry-After"))
            raise Failure(f"http_{answer.status}", host=host_of(url), retry_after=wait)
        return answer.body

    def read_notice(self, file: str) -> None:
        """Read a robots.txt or tdmrep.json that `notices.missing` named and `notices.claim` granted. Raises Failure."""
        self.notices.read(file, self._follow)

    def _follow(self, url: str) -> tuple[int, bytes]:
        for _ in range(_NOTICE_REDIRECTS + 1):
            answer = self.client.get(url, MAX_BYTES, cut=True)
            if not answer.location:
                return answer.status, answer.body
            url = answer.location
        raise Failure(Reason.TOO_MANY_REDIRECTS)


def user_agent(token: str, contact: str) -> str:
    """The User-Agent header: who asks, and where to complain."""
    return f"Mozilla/5.0 (compatible; {token}; +{contact})" if contact else f"Mozilla/5.0 (compatible; {token})"


@contextmanager
def web(config: DownloadConfig, served: Mapping[str, str], run: str = "") -> Iterator[Web]:
    """A fetcher for one partition; `served` maps host names to the ``ip:port`` of a server on this machine.

    `run` names the artifact: its partitions in one process share what robots.txt files say.
    """
    dialer = Dialer(served, config.private_hosts)
    tdm = config.tdm_reservation
    reads = partial(shared_notices, run) if run else Notices
    notices = reads(config.user_agent_token, config.robots, tdm == "header_and_file")
    opt_out = OptOut(config.opt_out_directives, config.user_agent_token, tdm != "ignore")
    agent = user_agent(config.user_agent_token, config.contact)
    with Client(dialer, config.timeout, config.total_timeout, agent) as client:
        yield Web(client, dialer, notices, opt_out, config.max_bytes)


class Files:
    """Reads images from the ingest artifact, or else from the folder a source names."""

    def __init__(self, pairs: Artifact, root: str, max_bytes: int) -> None:
        """`root`: folder or fsspec URL that other relative paths start from."""
        self._pairs = pairs
        self._own = {entry["name"] for entry in pairs.manifest["files"]}
        self._root = root
        self._max_bytes = max_bytes

    def __call__(self, location: str) -> bytes:
        """The file's bytes. Raises Failure. Thread-safe."""
        try:
            with self._open(location) as file:
                data = file.read(self._max_bytes + 1)
        except (FileNotFoundError, ValueError):  # ValueError: a name that no file can have (a null character)
            raise Failure(Reason.MISSING_FILE) from None
        except (PermissionError, IsADirectoryError, NotADirectoryError):
            raise Failure(Reason.UNREADABLE_FILE) from None
        except OSError as error:
            # The machine's trouble, not the image's; its own text would tell the name of a perhaps private file.
            raise RuntimeError(f"a local image could not be read: {error.strerror}") from None
        if len(data) > self._max_bytes:
            raise Failure(Reason.TOO_LARGE, f"larger than {self._max_bytes} bytes")
        return data

    def _open(self, location: str) -> IO[bytes]:
        if location in self._own:
            return self._pairs.open(location)
        place = location
        if not (is_remote(location) or os.path.isabs(location)):
            place = f"{self._root.rstrip('/')}/{location}" if self._root else location
        if not is_remote(place):
            return Path(place.removeprefix("file://")).open("rb")
        import fsspec

        file: IO[bytes] = fsspec.open(place, "rb").open()
        return file


def listed_location(url: str | None, path: str | None) -> str:
    """What to fetch for a row of pairs. Raises Failure for a URL that cannot be requested."""
    if path is not None:
        return path
    if url is None:
        raise Failure(Reason.INVALID_URL)
    return request_url(url)
