"""Watches the share of images that can be downloaded: if it collapses, the stage stops early."""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from stages.base.contract import UserError
from stages.download.outcome import Reason, remedy

log = logging.getLogger(__name__)

#: Maximum number of hosts in a partition's report (those with most attempts), and of reasons in a message.
_HOSTS, _REASONS = 50, 5

#: Listed host of an image (empty for local files and private sources), and status of its outcome.
HostOutcome = tuple[str, str]


class Window:
    """The last attempts of one partition. Thread-safe."""

    def __init__(self, source: str, min_rate: float, size: int) -> None:
        self._source = source
        self._min_rate = min_rate
        self._size = size
        self._lock = threading.Lock()
        self._last: deque[HostOutcome] = deque()
        self._success = 0

    def add(self, host: str, status: str) -> None:
        """Add an attempt. Raises UserError if too few of the last ones succeeded."""
        if status == Reason.FORGOTTEN:
            return
        with self._lock:
            self._last.append((host, status))
            self._success += status == Reason.SUCCESS
            if len(self._last) > self._size:
                self._success -= self._last.popleft()[1] == Reason.SUCCESS
            if len(self._last) < self._size or self._success >= self._min_rate * self._size:
                return
            raise collapse(self._source, self._min_rate, report((*outcome, 1) for outcome in self._last))


def report(outcomes: Iterable[tuple[str, str, int]]) -> dict[str, Any]:
    """Summary of attempts, small enough to be sent to the driver: `attempts`, `success`, `reasons`, `hosts`.

    `outcomes`: host, status, number of images.
    """
    reasons: Counter[str] = Counter()
    hosts: dict[str, Counter[str]] = {}
    for host, status, images in outcomes:
        if status == Reason.FORGOTTEN:  # no request was made
            continue
        reasons[status] += images
        if host:
            hosts.setdefault(host, Counter())[status] += images
    attempts = {host: counts.total() for host, counts in hosts.items()}
    success = reasons.pop(Reason.SUCCESS, 0)
    return {
        "attempts": success + reasons.total(),
        "success": success,
        "reasons": dict(reasons),
        "hosts": {host: dict(hosts[host]) for host, _ in _top(attempts, _HOSTS)},
    }


def check(source: str, min_rate: float, after: int, reports: Sequence[Mapping[str, Any]]) -> None:
    """Raises UserError if too few of the newest `after` attempts (in whole partitions) succeeded."""
    tail: list[Mapping[str, Any]] = []
    for newest in reversed(reports):
        tail.append(newest)
        if sum(part["attempts"] for part in tail) >= after:
            recent = merged(tail)
            if recent["success"] < min_rate * recent["attempts"]:
                raise collapse(source, min_rate, recent)
            return


def poor_hosts(reports: Sequence[Mapping[str, Any]], min_rate: float, after: int) -> dict[str, Counter[str]]:
    """Hosts below the rate over at least `after` attempts, with the counts of their statuses."""
    hosts = merged(reports)["hosts"]
    return {host: c for host, c in hosts.items() if c.total() >= after and c[Reason.SUCCESS] < min_rate * c.total()}


def merged(reports: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The sum of reports, with counters for `reasons` and for each of the `hosts`."""
    total: dict[str, Any] = {"attempts": 0, "success": 0, "reasons": Counter(), "hosts": {}}
    for part in reports:
        total["attempts"] += part["attempts"]
        total["success"] += part["success"]
        total["reasons"].update(part["reasons"])
        for host, statuses in part["hosts"].items():
            total["hosts"].setdefault(host, Counter()).update(statuses)
    return total


def collapse(source: str, min_rate: float, figures: Mapping[str, Any]) -> UserError:
    """The error that stops the stage; `figures` is a report."""
    hosts = merged([figures])["hosts"]
    failed = Counter({host: c.total() - c[Reason.SUCCESS] for host, c in hosts.items()})
    worst = ", ".join(f"{host} ({n:,} of {hosts[host].total():,} failed)" for host, n in _top(failed, 3) if n)
    helps = remedy(commonest(figures["reasons"]))
    return UserError(
        f"sources.{source}: only {figures['success']:,} of the last {figures['attempts']:,} images could be downloaded,"
        f" fewer than download.min_success_rate={min_rate:g} allows: {most_frequent(figures['reasons'])}"
        f"{f'; most of them at {worst}' if worst else ''}{f'; {helps}' if helps else ''}. What was fetched is kept: the"
        " same command resumes from here when the cause is fixed, or, if the list is as bad as that, with"
        " download.min_success_rate=0"
    )


def most_frequent(statuses: Mapping[str, int]) -> str:
    """Reasons with their counts, most frequent first."""
    return ", ".join(f"{status} {n:,}" for status, n in _top(statuses, _REASONS))


def commonest(statuses: Mapping[str, int]) -> str:
    """The most frequent of at least one."""
    return _top(statuses, 1)[0][0]


def _top(counts: Mapping[str, int], most: int) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:most]
