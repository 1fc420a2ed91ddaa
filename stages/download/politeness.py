"""Which image is fetched next: a few per host at a time, none before its host wants to hear from us again."""

from __future__ import annotations

import heapq
import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence


def backoff_seconds(attempt: int, first: float, longest: float) -> float:
    """Wait before retry `attempt` (0 = first): exponential, the upper half of it random, so that crowds disperse."""
    return float(min(longest, first * 2**attempt) * random.uniform(0.5, 1.0))


class HostQueue:
    """Jobs by number, each of one host at a time; threads take them, and nobody sleeps while another host has work.

    A job that is handed out stands for one request. Jobs are handed out in number order as far as the limits allow.
    The empty host has no limits (local files).
    """

    def __init__(
        self, hosts: Sequence[str], per_host: int, interval: Callable[[str], float] | None = None, gated: bool = False
    ) -> None:
        """`hosts[i]` is the host of job `i`; `per_host` jobs of one host run at a time.

        `interval` gives the seconds between two requests to a host. With `gated`, a host has one job at a time until
        :meth:`open` is called for it: so that the first can ask for the rules.
        """
        self._hosts = list(hosts)
        self._per_host = per_host
        self._interval = interval or (lambda host: 0.0)
        self._intervals: dict[str, float] = {}
        self._opened: set[str] | None = set() if gated else None
        self._changed = threading.Condition()
        self._waiting: defaultdict[str, list[int]] = defaultdict(list)
        for job, host in enumerate(hosts):
            self._waiting[host].append(job)  # ascending, so each list is a heap
        self._running: Counter[str] = Counter()
        self._paused: dict[str, float] = {}  # host -> end of a pause it asked for
        self._next: dict[str, float] = {}  # host -> earliest next request by its rate
        self._asleep: list[tuple[float, int, str]] = []  # (wake time, job or -1 for the host itself, host)
        self._ready: list[tuple[int, str]] = []  # at most one entry per host: (its first job, host)
        self._listed: set[str] = set()
        self._open = len(hosts)
        for host in list(self._waiting):
            self._offer(host)

    def open(self, host: str, interval: float = 0.0) -> None:
        """The host's rules are known; `interval` (seconds) is what it asks for between requests.

        Called by whoever has a job of the host and is about to make its request.
        """
        with self._changed:
            if self._opened is None or host in self._opened:
                return
            self._opened.add(host)
            self._intervals[host] = max(interval, self._between(host))
            self._space(host, time.monotonic())
            self._offer(host)
            self._changed.notify()

    def take(self) -> int | None:
        """The next job; blocks until there is one. None when all are done or the queue was aborted."""
        with self._changed:
            while self._open > 0:
                now = time.monotonic()
                self._wake(now)
                if (job := self._pop(now)) is not None:
                    if self._ready or self._asleep:
                        # A wake-up may free many jobs, and a job taken may set a new wake time: each taker calls the
                        # next, who takes or waits until then.
                        self._changed.notify()
                    return job
                self._changed.wait(self._asleep[0][0] - now if self._asleep else None)
            return None

    def done(self, job: int, asked: bool = True) -> None:
        """The job reached its end, good or bad; without `asked` there was no request, and the next need not wait."""
        with self._changed:
            if not asked:
                self._next.pop(self._hosts[job], None)
            self._open -= 1
            self._leave(self._hosts[job])
            if self._open <= 0:
                self._changed.notify_all()

    def move(self, job: int, host: str) -> None:
        """The job goes on with another request, to this host (a redirect's), within that host's limits."""
        with self._changed:
            before, self._hosts[job] = self._hosts[job], host
            heapq.heappush(self._waiting[host], job)
            self._offer(host)
            self._leave(before)

    def retry(self, job: int, delay: float, host_delay: float = 0.0, host: str | None = None) -> None:
        """Hand the job out again after `delay` seconds, and nothing of its present host before `host_delay` seconds.

        `host`: where it starts again, unless at its present host.
        """
        with self._changed:
            present = self._hosts[job]
            self._hosts[job] = again = present if host is None else host
            now = time.monotonic()
            heapq.heappush(self._asleep, (now + max(delay, host_delay), job, again))
            if host_delay > 0:
                self._pause(present, now + host_delay)
            self._leave(present)
            self._changed.notify()  # someone must take the new wake time into account

    def abort(self) -> None:
        """Hand out nothing more."""
        with self._changed:
            self._open = 0
            self._changed.notify_all()

    def _leave(self, host: str) -> None:
        self._running[host] -= 1
        self._offer(host)
        self._changed.notify()

    def _offer(self, host: str) -> None:
        gate = self._opened is not None and host not in self._opened
        free = not host or self._running[host] < (1 if gate else self._per_host)
        if free and host not in self._listed and self._waiting[host]:
            heapq.heappush(self._ready, (self._waiting[host][0], host))
            self._listed.add(host)

    def _wake(self, now: float) -> None:
        while self._asleep and self._asleep[0][0] <= now:
            _, job, host = heapq.heappop(self._asleep)
            if job >= 0:
                heapq.heappush(self._waiting[host], job)
            self._offer(host)

    def _pop(self, now: float) -> int | None:
        while self._ready:
            _, host = heapq.heappop(self._ready)
            self._listed.discard(host)
            if max(self._paused.get(host, 0.0), self._next.get(host, 0.0)) > now:
                continue  # its wake-up is in the sleepers' list
            job = heapq.heappop(self._waiting[host])
            self._running[host] += 1
            self._space(host, now)
            self._offer(host)
            return job
        return None

    def _space(self, host: str, now: float) -> None:
        """Let the host's next request wait until its interval is over."""
        if host and (interval := self._between(host)):
            self._next[host] = now + interval
            heapq.heappush(self._asleep, (now + interval, -1, host))

    def _between(self, host: str) -> float:
        if host not in self._intervals:
            self._intervals[host] = self._interval(host)
        return self._intervals[host]

    def _pause(self, host: str, until: float) -> None:
        if until > self._paused.get(host, 0.0):
            self._paused[host] = until
            heapq.heappush(self._asleep, (until, -1, host))
