"""Ray tasks whose results come back in the order of the calls, however many run at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import ray
from ray.exceptions import RayTaskError

from stages.base.contract import UserError

R = TypeVar("R")


def in_order(function: Callable[..., R], calls: Iterable[tuple[Any, ...]]) -> Iterator[R]:
    """`function(*call)` for each call, one CPU each; object references among the arguments are resolved.

    Raises UserError as the function does. A few more calls than CPUs are under way, so that results do not pile up.
    """
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
