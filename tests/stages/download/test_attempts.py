"""A server is asked as often as documented, whatever fails, and not at all while it asked not to be."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from stages.download.outcome import Failure
from stages.download.rate_limit import RateLimits

OK = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"


def reset(connection: Any) -> None:
    import socket
    import struct

    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


#: How a server that keeps connections alive answers, and how that ends.
FAILURES: dict[str, tuple[Callable[[Any], None] | bytes, str]] = {
    "reset": (reset, "connection_reset"),
    "closed": (b"", "connection_reset"),
    "http-0.9": (b"<html>", "bad_response"),
    "half-a-head": (b"HTTP/1.1 200 OK\r\nContent-", "incomplete_transfer"),
    "half-a-body": (OK % 500 + b"x" * 300, "incomplete_transfer"),
    "not-compressed": (
        b"HTTP/1.1 200 OK\r\nContent-Encoding: deflate\r\nContent-Length: 3\r\n\r\n\xff\xff\xff",
        "bad_response",
    ),
    "http-500": (b"HTTP/1.1 500 Broken\r\nContent-Length: 0\r\n\r\n", "http_500"),
    "http-503": (b"HTTP/1.1 503 Busy\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n", "http_503"),
    "silent": (lambda connection: time.sleep(0.5), "timeout"),
}


@pytest.mark.parametrize("retries", [0, 2])
def test_whatever_fails_a_server_is_asked_once_and_retries_times(
    kept_alive_web: Any, pairs_of: Callable[..., Any], download: Callable[..., Any], attempts: Any, retries: int
) -> None:
    """Connections are kept alive after robots.txt and tdmrep.json, so the first try goes over one of those."""
    for name, (behaviour, _) in FAILURES.items():
        kept_alive_web.routes[f"/{name}"] = behaviour
    urls = {f"http://{name}.test/{name}": status for name, (_, status) in FAILURES.items()}
    hosts = {f"{name}.test": kept_alive_web.address for name in FAILURES}

    rows = attempts(download(pairs_of(list(urls)), hosts, retries=retries, timeout=0.3))

    assert {url: row["status"] for url, row in rows.items()} == urls
    asked = Counter(path for _, path in kept_alive_web.requests)
    assert {name: asked[f"/{name}"] for name in FAILURES} == dict.fromkeys(FAILURES, retries + 1)
    rules = [path for _, path in kept_alive_web.requests if path in ("/robots.txt", "/.well-known/tdmrep.json")]
    assert len(rules) == 2 * len(FAILURES)
    assert kept_alive_web.reused > 0


def test_a_connection_that_the_server_closes_just_then_costs_no_image(
    kept_alive_web: Any, make_picture: Callable[..., bytes], pairs_of: Callable[..., Any], download: Callable[..., Any]
) -> None:
    body = make_picture(1)
    for number in range(12):
        kept_alive_web.routes[f"/{number}"] = OK % len(body) + body
    kept_alive_web.most_per_connection = 3  # the fourth request meets a connection that breaks
    urls = [f"http://a.test/{number}" for number in range(12)]

    artifact = download(pairs_of(urls), {"a.test": kept_alive_web.address}, per_host=1)

    assert artifact.counts["success"] == 12


@pytest.mark.parametrize("header", ["86400", "date"])
@pytest.mark.parametrize("where", ["/1.jpg", "/robots.txt"])
def test_a_host_that_asks_for_a_longer_wait_than_allowed_is_not_asked_again(
    web: Any, make_picture: Any, pairs_of: Any, download: Any, attempts: Any, header: str, where: str
) -> None:
    wait = formatdate(time.time() + 86_400, usegmt=True) if header == "date" else header
    for number in range(9):
        web.serve(f"/{number}.jpg", make_picture(number))
    web.serve(where, status=429, Retry_After=wait)
    urls = [f"http://busy.test/{number}.jpg" for number in range(9)] + ["http://free.test/2.jpg"]
    # Listed in the order of their uids; one image at a time, in several partitions.
    pairs = pairs_of(urls, per_file=3)

    started = time.monotonic()
    artifact = download(pairs, {"busy.test": web.address, "free.test": web.address}, threads=1, max_retry_after=3600)

    assert time.monotonic() - started < 5
    assert web.requests[where] == 1 if where == "/1.jpg" else 2  # of both hosts
    rows = attempts(artifact)
    ended = Counter(row["status"] for row in rows.values())
    if where == "/robots.txt":
        assert ended == {"rate_limited": 10}
    else:
        assert rows["http://free.test/2.jpg"]["status"] == "success"
        assert rows["http://busy.test/1.jpg"]["status"] == "rate_limited"
        assert set(ended) == {"success", "rate_limited"}
    assert {row["error"] for row in rows.values() if row["status"] == "rate_limited"} == {
        "the host asks to wait longer than download.max_retry_after (Retry-After)"
    }
    web.serve(where, b"" if where == "/robots.txt" else make_picture(1))
    again = download(pairs, {"busy.test": web.address, "free.test": web.address}, previous=artifact, retry_pass=1)
    assert again.counts["success"] == 10


def test_a_retry_after_within_the_bound_is_waited_for_even_above_max_wait(
    web: Any, make_picture: Any, pairs_of: Any, download: Any
) -> None:
    asked: list[float] = []

    def answer(turn: int) -> tuple[int, dict[str, str], bytes]:
        asked.append(time.monotonic())
        return (503, {"Retry-After": "1"}, b"") if turn == 1 else (200, {}, make_picture(1))

    web.routes["/1.jpg"] = answer
    artifact = download(pairs_of(["http://a.test/1.jpg"]), {"a.test": web.address}, max_wait=0.1)
    assert artifact.counts["success"] == 1
    assert asked[1] - asked[0] >= 1


def test_what_a_host_asked_for_outlives_the_process_and_its_name_is_not_on_disk(tmp_path: Path) -> None:
    first, second = RateLimits(tmp_path / "limits"), RateLimits(tmp_path / "limits")
    assert first.refuse("busy.test", 60).status == "rate_limited"
    first.refuse("past.test", -1)
    with pytest.raises(Failure) as failure:
        second.check("busy.test")
    assert failure.value.status == "rate_limited"
    second.check("past.test")
    second.check("other.test")
    assert not any("busy" in path.name for path in (tmp_path / "limits").iterdir())
