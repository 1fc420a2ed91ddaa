"""Functions over parts of a table, in this process or as Ray tasks; results come back in the order of the calls."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, TypeVar

from stages.base.contract import UserError

R = TypeVar("R")


class Tasks(Protocol):
    """Where the work on parts is done."""

    def map(self, function: Callable[..., R], calls: Iterable[tuple[Any, ...]]) -> Iterator[R]:
        """`function(*call)` for each call, in order. Raises UserError as the function does."""

    def share(self, value: Any) -> Any:
        """What to pass among the arguments of many calls in place of `value`, which every call receives."""


class InProcess:
    """One call after the other in this process: for a few parts, for which starting Ray takes longer than the work."""

    def map(self, function: Callable[..., R], calls: Iterable[tuple[Any, ...]]) -> Iterator[R]:
        """See :class:`Tasks`."""
        return (function(*call) for call in calls)

    def share(self, value: Any) -> Any:
        """The value itself."""
        return value


class OnRay:
    """A Ray task per call, one CPU each; Ray must run. A task is repeated when its worker dies or its I/O fails."""

    def map(self, function: Callable[..., R], calls: Iterable[tuple[Any, ...]]) -> Iterator[R]:
        """See :class:`Tasks`. A few more calls than CPUs are under way, so that results do not pile up."""
        import ray
        from ray.exceptions import RayTaskError

        remote = ray.remote(function).options(num_cpus=1, retry_exceptions=[OSError])
        window = 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
        waiting: deque[Any] = deque()
        try:
            for call in calls:
                waiting.append(remote.remote(*call))
                if len(waiting) > window:
                    yield ray.get(waiting.popleft())
            while waiting:
                yield ray.get(waiting.popleft())
        except RayTaskError as error:
            raise error.cause if isinstance(error.cause, UserError) else error from None
        finally:
            for reference in waiting:
                ray.cancel(reference)

    def share(self, value: Any) -> Any:
        """A reference to the value in Ray's object store, which a call receives resolved."""
        import ray

        return ray.put(value)


def done(calls: Iterable[Any]) -> None:
    """Wait for calls whose results are in files."""
    deque(calls, maxlen=0)


def tasks_for(calls: int) -> Tasks:
    """Where to do so many calls: on Ray if it runs in this process and there is more than one."""
    if calls > 1 and "ray" in sys.modules:
        import ray

        if ray.is_initialized():
            return OnRay()
    return InProcess()
