"""One run of `select`: what its tasks receive, and passes over the ranges that each leave a state for the next."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from stages.base.contract import Inputs
from stages.base.exchange import Exchange
from stages.base.splitmix import mixed
from stages.base.tasks import Tasks, done
from stages.index.reader import Index
from stages.select.config import SelectConfig

R = TypeVar("R")


@dataclass(frozen=True)
class Limits:
    """How much a task works on at a time. No result depends on it."""

    rows: int = 1_000_000
    """Rows of a bucket of an exchange."""
    edges: int = 2_000_000
    """Near pairs that one task resolves; more are divided by connected component."""
    candidates: int = 1 << 16
    """Rows among which the driver looks for the last one of a share."""


@dataclass(frozen=True)
class Job:
    """What every task needs. Picklable; reads nothing until it is used."""

    index: Index
    config: SelectConfig
    inputs: Inputs
    """`pairs` and `raw` by source."""
    folder: str
    """Scratch that all workers share."""
    limits: Limits = field(default_factory=Limits)

    def exchange(self, name: str, buckets: int) -> Exchange:
        """Rows handed from task to task under a name."""
        return Exchange(Path(self.folder, "exchange", name), buckets)

    def buckets(self, rows: int) -> int:
        """Number of buckets for so many rows."""
        return max(1, -(-rows // self.limits.rows))

    @cached_property
    def private(self) -> frozenset[int]:
        """Numbers of the sources of which the report may contain only counts and uids."""
        return frozenset(n for n, name in enumerate(self.index.sources) if name in self.config.private_sources)


class Passes:
    """Functions over all ranges, in order of the ranges. What a :meth:`change` decides is what the next pass sees.

    A state is written under a new name, and the old one removed once all ranges have it: a task may be repeated.
    """

    def __init__(self, job: Job, tasks: Tasks) -> None:
        self.job = job
        self.tasks = tasks
        self.ranges = len(job.index.ranges)
        self._shared = tasks.share(job)
        self._step = 0

    def read(self, function: Callable[..., R], *args: Any) -> Iterator[R]:
        """`function(decision, ...)` for the decision on each range as it is, in order."""
        calls = ((self._shared, number, self._step, False, function, *args) for number in range(self.ranges))
        return self.tasks.map(_in_range, calls)

    def change(self, function: Callable[..., None], *args: Any) -> None:
        """The same, where the function changes the decision."""
        calls = ((self._shared, number, self._step, True, function, *args) for number in range(self.ranges))
        done(self.tasks.map(_in_range, calls))
        shutil.rmtree(_state(self.job, self._step), ignore_errors=True)
        self._step += 1

    def buckets(self, function: Callable[..., R], buckets: int, *args: Any) -> Iterator[R]:
        """`function(job, bucket, ...)` for every bucket, in order."""
        return self.tasks.map(function, ((self._shared, number, *args) for number in range(buckets)))

    def clear(self, *names: str) -> None:
        """Remove what was exchanged under these names."""
        for name in names:
            shutil.rmtree(Path(self.job.folder, "exchange", name), ignore_errors=True)


def _state(job: Job, step: int) -> Path:
    return Path(job.folder, "state", f"{step:03d}")


def _in_range(job: Job, number: int, step: int, change: bool, function: Callable[..., R], *args: Any) -> R:
    from stages.select.decision import Decision

    decision = Decision(job, number)
    if step:
        decision.load(_state(job, step))
    result = function(decision, *args)
    if change:
        decision.save(_state(job, step + 1))
    return result


def scattered(keys: NDArray[np.int64], buckets: int) -> NDArray[np.int64]:
    """A bucket per key, evenly whatever the keys, int64 [n]."""
    return (mixed(keys.astype(np.uint64)) % np.uint64(buckets)).astype(np.int64)
