"""Fetches the bytes of one image, by a request to the web or a read from a local folder, with typed failures."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

from stages.base.artifact import Artifact, is_remote
from stages.download.address import Dialer
from stages.download.attempts import ListedImage
from stages.download.client import Client, retry_after
from stages.download.config import DownloadConfig
from stages.download.opt_out import OptOut
from stages.download.outcome import Failure, Reason
from stages.download.rate_limit import RateLimits
from stages.download.robots import MAX_BYTES, CrawlRules, RulesResponse, shared_crawl_rules
from stages.download.url import host_of, request_url

_ACCEPT = "image/jpeg,image/png,image/webp,image/*;q=0.8,*/*;q=0.5"
#: RFC 9309, section 2.3.1.2: at least five redirects of a robots.txt are followed.
_RULES_REDIRECTS = 5
#: Folder below an artifact's scratch folder.
RATE_LIMITS = "rate_limits"


@dataclass(frozen=True)
class Redirect:
    """A redirect: the URL to request next."""

    url: str


@dataclass(frozen=True)
class Web:
    """Makes the requests of one partition. Thread-safe."""

    client: Client
    dialer: Dialer
    rules: CrawlRules
    opt_out: OptOut
    limits: RateLimits
    max_bytes: int

    def __call__(self, url: str, fresh: bool = False) -> bytes | Redirect:
        """The body for a URL that `request_url` made and `rules` allow, or a redirect. Raises Failure.

        `fresh`: not over a connection that was used before.
        """
        answer = self.client.get(url, self.max_bytes, _ACCEPT, self.opt_out, fresh=fresh)
        if answer.location:
            return Redirect(answer.location)
        if answer.status >= 300:
            wait = retry_after(answer.headers.get("Retry-After"))
            raise Failure(f"http_{answer.status}", host=host_of(url), retry_after=wait)
        return answer.body

    def read_rules(self, file: str) -> None:
        """Read a robots.txt or tdmrep.json that `rules.missing` named and `rules.claim` granted. Raises Failure."""
        self.rules.read(file, self._follow)

    def _follow(self, url: str) -> RulesResponse:
        for _ in range(_RULES_REDIRECTS + 1):
            try:
                answer = self.client.get(url, MAX_BYTES, truncate=True)
            except Failure as failure:
                if not failure.reused:
                    raise
                answer = self.client.get(url, MAX_BYTES, truncate=True, fresh=True)
            if not answer.location:
                return RulesResponse(answer.status, answer.body, retry_after(answer.headers.get("Retry-After")))
            url = answer.location
        raise Failure(Reason.TOO_MANY_REDIRECTS)


def user_agent(token: str, contact: str) -> str:
    """The User-Agent header: the crawler's name and contact address."""
    return f"Mozilla/5.0 (compatible; {token}; +{contact})" if contact else f"Mozilla/5.0 (compatible; {token})"


@contextmanager
def web(config: DownloadConfig, served: Mapping[str, str], run: str = "") -> Iterator[Web]:
    """A fetcher for one partition; `served` maps host names to the ``ip:port`` of a server on this machine.

    `run` is a folder shared by the partitions of one artifact: those in one process also share the rules of
    robots.txt files, and all share what hosts asked for by Retry-After.
    """
    dialer = Dialer(served, config.private_hosts)
    tdm = config.tdm_reservation
    reads = partial(shared_crawl_rules, run) if run else CrawlRules
    rules = reads(config.user_agent_token, config.robots, tdm == "header_and_file")
    opt_out = OptOut(config.opt_out_directives, config.user_agent_token, tdm != "ignore")
    agent = user_agent(config.user_agent_token, config.contact)
    with Client(dialer, config.timeout, config.total_timeout, agent) as client:
        limits = RateLimits(Path(run) / RATE_LIMITS if run else None)
        yield Web(client, dialer, rules, opt_out, limits, config.max_bytes)


class LocalImages:
    """Reads images from the ingest artifact, or else from the folder that a source names."""

    def __init__(self, pairs: Artifact, root: str, max_bytes: int) -> None:
        """`root`: folder or fsspec URL to which other relative paths are relative."""
        self._pairs = pairs
        self._own = {entry["name"] for entry in pairs.manifest["files"]}
        self._root = root
        self._max_bytes = max_bytes

    def __call__(self, location: str) -> bytes:
        """The file's bytes. Raises Failure. Thread-safe."""
        try:
            with self._open(location) as file:
                data = file.read(self._max_bytes + 1)
        except (FileNotFoundError, ValueError):  # ValueError: an invalid file name (a null character)
            raise Failure(Reason.MISSING_FILE) from None
        except (PermissionError, IsADirectoryError, NotADirectoryError):
            raise Failure(Reason.UNREADABLE_FILE) from None
        except OSError as error:
            # A problem of this machine, not of the image; its message would reveal the name of a possibly private file.
            raise RuntimeError(f"a local image could not be read: {error.strerror}") from None
        if len(data) > self._max_bytes:
            raise Failure(Reason.TOO_LARGE, f"larger than {self._max_bytes} bytes")
        return data

    def _open(self, location: str) -> IO[bytes]:
        if location in self._own:
            return self._pairs.open(location)
        path = location
        if not (is_remote(location) or os.path.isabs(location)):
            path = f"{self._root.rstrip('/')}/{location}" if self._root else location
        if not is_remote(path):
            return Path(path.removeprefix("file://")).open("rb")
        import fsspec

        file: IO[bytes] = fsspec.open(path, "rb").open()
        return file


def listed_location(url: str | None, path: str | None) -> str:
    """The location to fetch for a row of pairs. Raises Failure for a URL that cannot be requested."""
    if path is not None:
        return path
    if url is None:
        raise Failure(Reason.INVALID_URL)
    return request_url(url)


def web_urls(images: Sequence[ListedImage]) -> dict[str, int]:
    """URL as requested -> number of the image, of those images that are fetched over HTTP."""
    urls: dict[str, int] = {}
    for number, image in enumerate(images):
        if image.path is None:
            with suppress(Failure):
                urls.setdefault(listed_location(image.url, None), number)
    return urls
