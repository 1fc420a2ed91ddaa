"""Few requests per host at a time, pauses as required, and none to dead hosts."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.download.client import retry_after
from stages.download.host_queue import HostQueue, backoff_seconds


@settings(max_examples=40, deadline=None)
@given(
    hosts=st.lists(st.sampled_from(["a", "b", "c", ""]), max_size=30),
    retries=st.dictionaries(st.integers(0, 29), st.integers(1, 2)),
    threads=st.integers(1, 6),
    per_host=st.integers(1, 3),
)
def test_every_job_is_done_once_and_no_host_has_more_than_its_share(
    hosts: list[str], retries: dict[int, int], threads: int, per_host: int
) -> None:
    queue = HostQueue(hosts, per_host)
    left = dict(retries)
    lock = threading.Lock()
    running: Counter[str] = Counter()
    finished: Counter[int] = Counter()
    crowded = []

    def work() -> None:
        while (job := queue.take()) is not None:
            with lock:
                running[hosts[job]] += 1
                if hosts[job] and running[hosts[job]] > per_host:
                    crowded.append(job)
                again = left.get(job, 0) > 0
                left[job] = left.get(job, 0) - 1
                running[hosts[job]] -= 1
                finished[job] += not again
            if again:
                queue.retry(job, 0.001, 0.002 if job % 2 else 0.0)
            else:
                queue.done(job)

    pool = [threading.Thread(target=work) for _ in range(threads)]
    for thread in pool:
        thread.start()
    for thread in pool:
        thread.join(10)
        assert not thread.is_alive()
    assert finished == Counter(range(len(hosts)))
    assert not crowded


def test_a_paused_host_waits_while_others_go_on() -> None:
    queue = HostQueue(["slow", "slow", "fast"], per_host=2)
    first = queue.take()
    assert first == 0
    queue.retry(0, 0.0, host_delay=0.2)
    start = time.monotonic()
    assert queue.take() == 2
    assert time.monotonic() - start < 0.1
    assert queue.take() == 0
    assert time.monotonic() - start > 0.15


def test_abort_releases_waiting_threads() -> None:
    queue = HostQueue(["a"], per_host=1)
    assert queue.take() == 0
    waiting = threading.Thread(target=queue.take)
    waiting.start()
    queue.abort()
    waiting.join(5)
    assert not waiting.is_alive()


def test_requests_to_one_host_stay_within_per_host(
    web: Any,
    make_picture: Callable[..., bytes],
    pairs_of: Callable[..., Any],
    download: Callable[..., Any],
) -> None:
    body = make_picture()

    def answer(_: int) -> tuple[int, dict[str, str], bytes]:
        time.sleep(0.02)
        return 200, {}, body

    for n in range(20):
        web.routes[f"/{n}.jpg"] = answer
    urls = [f"http://a.test/{n}.jpg" for n in range(20)]
    artifact = download(pairs_of(urls), {"a.test": web.address}, threads=16, per_host=3)
    assert artifact.counts["success"] == 20
    assert web.most_at_once <= 3


def test_a_dead_host_costs_its_retries_once_and_not_for_every_url(
    closed_port: str, pairs_of: Callable[..., Any], download: Callable[..., Any]
) -> None:
    urls = [f"http://dead.test/{n}.jpg" for n in range(200)]
    start = time.monotonic()
    artifact = download(pairs_of(urls), {"dead.test": closed_port}, threads=4, per_host=2, backoff=0.2, max_wait=0.2)
    assert artifact.counts["status.connection_refused"] == 200
    assert time.monotonic() - start < 10  # 200 × 2 retries × 0.1 s at least would be 20 s for two at a time


def test_a_host_that_once_answered_is_never_given_up() -> None:
    from stages.download.address import Dialer
    from stages.download.outcome import Failure

    dialer = Dialer({})
    dialer._alive.add("a.test")
    dialer.mark_dead(Failure("connection_refused", host="a.test"))
    dialer.mark_dead(Failure("timeout", host="b.test"))
    dialer.mark_dead(Failure("dns", host="c.test"))
    assert [dialer.dead_status(f"{name}.test") for name in "abc"] == [None, None, "dns"]


@pytest.mark.parametrize("header", [None, "", "soon", "-5", "Wed, 99 Foo 2020"])
def test_a_missing_or_senseless_retry_after_is_no_pause(header: str | None) -> None:
    assert retry_after(header) == 0.0


def test_retry_after_is_read_as_seconds_and_as_date() -> None:
    assert retry_after("7") == 7.0
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    assert 25 < retry_after(later) <= 30


def test_backoff_doubles_with_jitter_up_to_a_limit() -> None:
    for attempt, most in enumerate([1.0, 2.0, 4.0, 5.0, 5.0]):
        assert most / 2 <= backoff_seconds(attempt, 1.0, 5.0) <= most
