"""Queue of downloads that limits concurrent requests per host and honours intervals and pauses of each host."""

from __future__ import annotations

import heapq
import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence


def backoff_seconds(attempt: int, first: float, longest: float) -> float:
    """Wait in seconds before retry `attempt` (0 = first): exponential, with jitter in the upper half."""
    return float(min(longest, first * 2**attempt) * random.uniform(0.5, 1.0))


class HostQueue:
    """Jobs by number, each belonging to one host at a time; no worker thread waits while another host has jobs ready.

    Handing out a job allows one request. Jobs are handed out in order of their numbers as far as the limits allow. The
    empty host (local files) has no limits.
    """

    def __init__(
        self, hosts: Sequence[str], per_host: int, interval: Callable[[str], float] | None = None, gated: bool = False
    ) -> None:
        """`hosts[i]` is the host of job `i`; at most `per_host` jobs of one host run at a time.

        `interval` returns the seconds between two requests to a host. With `gated`, a host has one job at a time until
        :meth:`open` is called for it, so that the first job can fetch the host's rules.
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
        self._paused: dict[str, float] = {}  # host -> end of its pause
        self._next: dict[str, float] = {}  # host -> earliest next request according to its rate
        self._asleep: list[tuple[float, int, str]] = []  # (wake time, job or -1 for the host itself, host)
        self._ready: list[tuple[int, str]] = []  # at most one entry per host: (its first job, host)
        self._listed: set[str] = set()
        self._open = len(hosts)
        for host in list(self._waiting):
            self._offer(host)

    def open(self, host: str, interval: float = 0.0) -> None:
        """Mark the host's rules as known; `interval` is the time in seconds that it requires between requests.

        Called by the thread that has a job of the host and is about to make its request.
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
                        # A wake-up may free many jobs, and taking a job may set a new wake time: each thread notifies
                        # the next one, which takes a job or waits until then.
                        self._changed.notify()
                    return job
                self._changed.wait(self._asleep[0][0] - now if self._asleep else None)
            return None

    def done(self, job: int, requested: bool = True) -> None:
        """Finish a job; if not `requested`, it made no request and the host's next job need not wait."""
        with self._changed:
            if not requested:
                self._next.pop(self._hosts[job], None)
            self._open -= 1
            self._leave(self._hosts[job])
            if self._open <= 0:
                self._changed.notify_all()

    def move(self, job: int, host: str) -> None:
        """Queue the job's next request, to this host (that of a redirect), within that host's limits."""
        with self._changed:
            before, self._hosts[job] = self._hosts[job], host
            heapq.heappush(self._waiting[host], job)
            self._offer(host)
            self._leave(before)

    def retry(self, job: int, delay: float, host_delay: float = 0.0, host: str | None = None) -> None:
        """Hand the job out again after `delay` seconds, and no job of its current host before `host_delay` seconds.

        `host`: the host to which the retry goes; the current host if None.
        """
        with self._changed:
            current = self._hosts[job]
            self._hosts[job] = target = current if host is None else host
            now = time.monotonic()
            heapq.heappush(self._asleep, (now + max(delay, host_delay), job, target))
            if host_delay > 0:
                self._pause(current, now + host_delay)
            self._leave(current)
            self._changed.notify()  # a waiting thread must take the new wake time into account

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
                continue  # its wake-up is in `_asleep`
            job = heapq.heappop(self._waiting[host])
            self._running[host] += 1
            self._space(host, now)
            self._offer(host)
            return job
        return None

    def _space(self, host: str, now: float) -> None:
        """Delay the host's next request until its interval is over."""
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
