"""robots.txt and tdmrep.json of every server asked: fetched once, obeyed, remembered for a run."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from stages.download.address import host_of
from stages.download.outcome import CONNECT, Failure, Reason

if TYPE_CHECKING:
    from protego import Protego

#: A crawler must read at least this much of a robots.txt, and need not read more (RFC 9309, section 2.5).
MAX_BYTES = 500 * 1024
#: Seconds that rules may be relied on without asking again (RFC 9309, section 2.4).
MAX_AGE = 24 * 3600.0
#: The same for a server that could not say: it may have recovered.
MAX_AGE_FAILURE = 600.0
#: Files remembered at a time.
MOST = 20_000

ROBOTS, TDM = "/robots.txt", "/.well-known/tdmrep.json"

#: Fetches a URL, redirects included: (HTTP status, at most MAX_BYTES of the body). Raises Failure.
Get = Callable[[str], tuple[int, bytes]]


@dataclass(frozen=True)
class Rules:
    """What one of the two files says; `parsed` is None where it forbids nothing."""

    read: float
    parsed: Protego | None = None
    failure: str = ""
    """Why it could not be read, where that forbids everything."""


def origin_of(url: str) -> str:
    """Scheme, host and port of a URL: what one robots.txt speaks for."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


class Notices:
    """The rules of all servers met so far. Thread-safe; partitions of one artifact share them within a process."""

    def __init__(self, token: str, robots: bool, tdm: bool) -> None:
        """`robots`, `tdm`: which of the two files are asked for; `token` names this crawler."""
        self._token = token
        self._wanted = [path for path, wanted in ((ROBOTS, robots), (TDM, tdm)) if wanted]
        self._lock = threading.Lock()
        self._known: OrderedDict[str, Rules] = OrderedDict()
        self._asking: set[str] = set()

    def missing(self, url: str) -> str | None:
        """URL of a file that has to be read before `url` may be fetched, or None."""
        origin = origin_of(url)
        for path in self._wanted:
            rules = self._known.get(origin + path)
            if rules is None or time.monotonic() - rules.read > (MAX_AGE_FAILURE if rules.failure else MAX_AGE):
                return origin + path
        return None

    def claim(self, file: str) -> bool:
        """Whether the caller is to read a missing file; False while another thread does."""
        with self._lock:
            if file in self._asking:
                return False
            self._asking.add(file)
            return True

    def read(self, file: str, get: Get) -> None:
        """Read a claimed file. Raises Failure when it may be had later: a dead host's, or `robots_unavailable`."""
        try:
            self._keep(file, self._tdm(file, get) if file.endswith(TDM) else self._robots(file, get))
        finally:
            with self._lock:
                self._asking.discard(file)

    def give_up(self, url: str, failure: Failure) -> None:
        """Take it that nothing may be fetched from a URL's server, since its robots.txt could not be read."""
        self._keep(origin_of(url) + ROBOTS, Rules(time.monotonic(), failure=failure.detail))

    def check(self, url: str) -> None:
        """Raises Failure (`robots`, `robots_unavailable`, `opt_out`) where the files that were read forbid a URL."""
        origin = origin_of(url)
        for path in self._wanted:
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
        """Seconds a server wants between requests (Crawl-delay, Request-rate); 0 when it does not say."""
        rules = self._known.get(origin_of(url) + ROBOTS)
        if rules is None or rules.parsed is None:
            return 0.0
        rate = rules.parsed.request_rate(self._token)
        return max(rules.parsed.crawl_delay(self._token) or 0.0, rate.seconds / rate.requests if rate else 0.0)

    def _robots(self, file: str, get: Get) -> Rules:
        from protego import Protego

        try:
            status, content = get(file)
        except Failure as failure:
            if failure.status in CONNECT:
                raise  # the host's images would fail the same way, and under their own name
            if not failure.transient:
                return Rules(time.monotonic())  # what is wrong with the host, its images will meet themselves
            raise self._unavailable(failure) from failure
        # RFC 9309, 2.3.1.3: no file, no rules. 4xx that ask to come back later are no such answer.
        said = Failure(f"http_{status}", host=host_of(file))
        if said.transient or status >= 500:
            raise self._unavailable(said)
        if status >= 300:
            return Rules(time.monotonic())
        # Most files say nothing about images: rules are only kept where there are some.
        telling = any(word in content.lower() for word in (b"allow", b"delay", b"rate", b"alow", b"allaw"))
        return Rules(time.monotonic(), Protego.parse(content.decode("utf-8-sig", "replace")) if telling else None)

    def _unavailable(self, failure: Failure) -> Failure:
        return Failure(Reason.ROBOTS_UNAVAILABLE, f"robots.txt: {failure.status}", failure.host, failure.retry_after)

    def _tdm(self, file: str, get: Get) -> Rules:
        from stages.download.optout import tdm_rules

        try:
            status, content = get(file)
        except Failure:
            return Rules(time.monotonic())
        return Rules(time.monotonic(), tdm_rules(content) if 200 <= status < 300 else None)

    def _keep(self, file: str, rules: Rules) -> None:
        with self._lock:
            self._known[file] = rules
            if len(self._known) > MOST:
                self._known.popitem(last=False)


_shared: dict[str, Notices] = {}


def shared_notices(run: str, token: str, robots: bool, tdm: bool) -> Notices:
    """The notices of one run in this process: partitions of an artifact (named by `run`) ask each server once."""
    if run not in _shared:
        _shared.clear()
        _shared[run] = Notices(token, robots, tdm)
    return _shared[run]
