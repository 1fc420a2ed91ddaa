"""Which image is fetched next: a few per host at a time, none before its host wants to hear from us again."""

from __future__ import annotations

import heapq
import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Sequence


def backoff_seconds(attempt: int, first: float, longest: float) -> float:
    """Wait before retry `attempt` (0 = first): exponential, the upper half of it random, so that crowds disperse."""
    return float(min(longest, first * 2**attempt) * random.uniform(0.5, 1.0))


class HostQueue:
    """Jobs by number, each of one host; threads take them, and nobody sleeps while another host has work.

    Jobs are handed out in number order as far as the limits allow. The empty host has no limit (local files).
    """

    def __init__(self, hosts: Sequence[str], per_host: int) -> None:
        """`hosts[i]` is the host of job `i`; `per_host` jobs of one host run at a time."""
        self._hosts = hosts
        self._per_host = per_host
        self._changed = threading.Condition()
        self._waiting: defaultdict[str, list[int]] = defaultdict(list)
        for job, host in enumerate(hosts):
            self._waiting[host].append(job)  # ascending, so each list is a heap
        self._running: Counter[str] = Counter()
        self._paused: dict[str, float] = {}
        self._asleep: list[tuple[float, int, str]] = []  # (wake time, job or -1 for the host itself, host)
        self._ready: list[tuple[int, str]] = []  # at most one entry per host: (its first job, host)
        self._listed: set[str] = set()
        self._open = len(hosts)
        for host in list(self._waiting):
            self._offer(host)

    def take(self) -> int | None:
        """The next job; blocks until there is one. None when all are done or the queue was aborted."""
        with self._changed:
            while self._open > 0:
                now = time.monotonic()
                self._wake(now)
                if (job := self._pop(now)) is not None:
                    if self._ready:
                        self._changed.notify()  # a wake-up may free many jobs: each taker calls the next
                    return job
                self._changed.wait(self._asleep[0][0] - now if self._asleep else None)
            return None

    def done(self, job: int) -> None:
        """The job reached its end, good or bad."""
        with self._changed:
            self._open -= 1
            self._leave(self._hosts[job])
            if self._open <= 0:
                self._changed.notify_all()

    def retry(self, job: int, delay: float, host_delay: float = 0.0) -> None:
        """Hand the job out again after `delay` seconds, and nothing of its host before `host_delay` seconds."""
        with self._changed:
            host = self._hosts[job]
            now = time.monotonic()
            heapq.heappush(self._asleep, (now + max(delay, host_delay), job, host))
            if host_delay > 0:
                until = max(self._paused.get(host, 0.0), now + host_delay)
                self._paused[host] = until
                heapq.heappush(self._asleep, (until, -1, host))
            self._leave(host)
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
        free = not host or self._running[host] < self._per_host
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
            if self._paused.get(host, 0.0) > now:
                continue  # its wake-up is in the sleepers' list
            job = heapq.heappop(self._waiting[host])
            self._running[host] += 1
            self._offer(host)
            return job
        return None
