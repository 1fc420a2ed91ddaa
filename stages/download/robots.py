"""Rules of servers, robots.txt and tdmrep.json: fetched once per server, obeyed, and kept for a run."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from stages.download.outcome import CONNECT, Failure, Reason
from stages.download.url import host_of

if TYPE_CHECKING:
    from protego import Protego

#: A crawler must read at least this much of a robots.txt, and need not read more (RFC 9309, section 2.5).
MAX_BYTES = 500 * 1024
#: Seconds for which rules may be cached (RFC 9309, section 2.4).
MAX_AGE = 24 * 3600.0
#: The same for a server whose rules could not be read: it may have recovered.
MAX_AGE_FAILURE = 600.0
#: Maximum number of files cached.
MAX_FILES = 20_000

ROBOTS, TDM = "/robots.txt", "/.well-known/tdmrep.json"


@dataclass(frozen=True)
class RulesResponse:
    """The response to a request for one of the two files, after redirects."""

    status: int
    body: bytes
    """At most MAX_BYTES."""
    retry_after: float = 0.0
    """Seconds to wait as requested by the server."""


#: Fetches a URL, redirects included. Raises Failure.
Get = Callable[[str], RulesResponse]


@dataclass(frozen=True)
class RuleFile:
    """One of the two files; `parsed` is None if it forbids nothing."""

    read: float
    parsed: Protego | None = None
    failure: str = ""
    """Why it could not be read, if that forbids everything."""


def origin_of(url: str) -> str:
    """Scheme, host and port of a URL: the scope of one robots.txt."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


class CrawlRules:
    """The rules of all servers so far. Thread-safe; partitions of one artifact share them within a process."""

    def __init__(self, token: str, robots: bool, tdm: bool) -> None:
        """`robots`, `tdm`: which of the two files are read; `token` names this crawler."""
        self._token = token
        self._paths = [path for path, enabled in ((ROBOTS, robots), (TDM, tdm)) if enabled]
        self._lock = threading.Lock()
        self._known: OrderedDict[str, RuleFile] = OrderedDict()
        self._claimed: set[str] = set()

    def missing(self, url: str) -> str | None:
        """URL of a file that has to be read before `url` may be fetched, or None."""
        origin = origin_of(url)
        for path in self._paths:
            rules = self._known.get(origin + path)
            if rules is None or time.monotonic() - rules.read > (MAX_AGE_FAILURE if rules.failure else MAX_AGE):
                return origin + path
        return None

    def claim(self, file: str) -> bool:
        """Claim a missing file for reading; False if another thread is reading it."""
        with self._lock:
            if file in self._claimed:
                return False
            self._claimed.add(file)
            return True

    def read(self, file: str, get: Get) -> None:
        """Read a claimed file. Raises a transient Failure: that of a dead host, or `robots_unavailable`."""
        try:
            self._keep(file, self._tdm(file, get) if file.endswith(TDM) else self._robots(file, get))
        finally:
            with self._lock:
                self._claimed.discard(file)

    def give_up(self, url: str, failure: Failure) -> None:
        """Forbid everything on a URL's server, since its robots.txt could not be read."""
        self._keep(origin_of(url) + ROBOTS, RuleFile(time.monotonic(), failure=failure.detail))

    def check(self, url: str) -> None:
        """Raises Failure (`robots`, `robots_unavailable`, `opt_out`) if the files read so far forbid a URL."""
        origin = origin_of(url)
        for path in self._paths:
            rules = self._known.get(origin + path)
            if rules is None:
                continue
            if rules.failure:
                raise Failure(Reason.ROBOTS_UNAVAILABLE, rules.failure)
            if rules.parsed is None:
                continue
            if path == ROBOTS and not rules.parsed.can_fetch(url, self._token):
                raise Failure(Reason.ROBOTS)
            if path == TDM and not rules.parsed.can_fetch(url, "*"):
                raise Failure(Reason.OPT_OUT, "reserved in tdmrep.json")

    def delay(self, url: str) -> float:
        """Seconds that a server requires between requests (Crawl-delay, Request-rate); 0 if it sets none."""
        rules = self._known.get(origin_of(url) + ROBOTS)
        if rules is None or rules.parsed is None:
            return 0.0
        rate = rules.parsed.request_rate(self._token)
        return max(rules.parsed.crawl_delay(self._token) or 0.0, rate.seconds / rate.requests if rate else 0.0)

    def _robots(self, file: str, get: Get) -> RuleFile:
        from protego import Protego

        try:
            response = get(file)
        except Failure as failure:
            if failure.status in CONNECT:
                raise  # the host's images would fail the same way
            if not failure.transient:
                return RuleFile(time.monotonic())  # the requests for images will fail with the host's own error
            raise self._unavailable(failure) from failure
        # RFC 9309, 2.3.1.3: no file, no rules. Transient 4xx (such as 429) do not mean that there is no file.
        failed = Failure(f"http_{response.status}", host=host_of(file), retry_after=response.retry_after)
        if failed.transient or response.status >= 500:
            raise self._unavailable(failed)
        content = response.body
        if response.status >= 300:
            return RuleFile(time.monotonic())
        # Most files contain no rules: only those that may contain some are parsed and kept.
        restrictive = any(word in content.lower() for word in (b"allow", b"delay", b"rate", b"alow", b"allaw"))
        return RuleFile(
            time.monotonic(), Protego.parse(content.decode("utf-8-sig", "replace")) if restrictive else None
        )

    def _unavailable(self, failure: Failure) -> Failure:
        return Failure(Reason.ROBOTS_UNAVAILABLE, f"robots.txt: {failure.status}", failure.host, failure.retry_after)

    def _tdm(self, file: str, get: Get) -> RuleFile:
        from stages.download.opt_out import tdm_rules

        try:
            response = get(file)
        except Failure:
            return RuleFile(time.monotonic())
        return RuleFile(time.monotonic(), tdm_rules(response.body) if 200 <= response.status < 300 else None)

    def _keep(self, file: str, rules: RuleFile) -> None:
        with self._lock:
            self._known[file] = rules
            if len(self._known) > MAX_FILES:
                self._known.popitem(last=False)


_shared: dict[str, CrawlRules] = {}


def shared_crawl_rules(run: str, token: str, robots: bool, tdm: bool) -> CrawlRules:
    """The rules of one run in this process: partitions of an artifact (named by `run`) read each file once."""
    if run not in _shared:
        _shared.clear()
        _shared[run] = CrawlRules(token, robots, tdm)
    return _shared[run]
