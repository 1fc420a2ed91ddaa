"""One request, one answer: connections are used again, and nothing of an answer is read beyond its limits."""

from __future__ import annotations

import gzip
import io
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.download.address import Dialer
from stages.download.client import Client
from stages.download.outcome import Failure
from stages.download.response import read_headers

URL = "http://a.test/x"


@contextmanager
def client(address: str, timeout: float = 5.0, total: float = 5.0) -> Iterator[Client]:
    with Client(Dialer({"a.test": address}), timeout, total, "test") as made:
        yield made


class Raw:
    """A server that answers the requests of each connection with the given bytes, one after the other."""

    def __init__(self, *connections: list[bytes]) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.accepted = 0
        self._connections = connections
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        for answers in self._connections:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            self.accepted += 1
            with sock:
                for answer in answers:
                    sock.recv(65_536)
                    sock.sendall(answer)


@pytest.fixture
def raw() -> Iterator[Callable[..., Raw]]:
    made: list[Raw] = []

    def make(*connections: list[bytes]) -> Raw:
        made.append(Raw(*connections))
        return made[-1]

    yield make
    for server in made:
        server.listener.close()


def ok(body: bytes, *headers: str, length: bool = True) -> bytes:
    lines = ["HTTP/1.1 200 OK", *headers, *([f"Content-Length: {len(body)}"] if length else [])]
    return "\r\n".join([*lines, "", ""]).encode() + body


def test_a_connection_serves_many_requests(web: Any) -> None:
    for n in range(20):
        web.serve(f"/{n}", b"x" * n)
    web.serve("/none", status=404, body=b"gone")
    with client(web.address) as fetch:
        for n in range(20):
            assert fetch.get(f"http://a.test/{n}", 100).body == b"x" * n
            assert fetch.get("http://a.test/none", 100).status == 404
    assert web.connections == 1


def test_a_connection_that_the_server_closed_meanwhile_is_replaced_without_a_failure(raw: Any) -> None:
    server = raw([ok(b"one")], [ok(b"two")])
    with client(server.address) as fetch:
        assert fetch.get(URL, 10).body == b"one"
        time.sleep(0.05)
        assert fetch.get(URL, 10).body == b"two"
    assert server.accepted == 2


def test_an_unrequested_response_is_not_mistaken_for_the_next_one(raw: Any) -> None:
    server = raw([ok(b"one") + ok(b"not requested")], [ok(b"two")])
    with client(server.address) as fetch:
        assert fetch.get(URL, 10).body == b"one"
        time.sleep(0.05)
        assert fetch.get(URL, 10).body == b"two"


def test_interim_answers_are_skipped_and_the_connection_used_again(raw: Any) -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n"
    server = raw([hints + ok(b"one"), hints + ok(b"two")])
    with client(server.address) as fetch:
        assert fetch.get(URL, 10).body == b"one"
        assert fetch.get(URL, 10).body == b"two"
    assert server.accepted == 1


def test_a_connection_with_more_bytes_than_announced_is_not_used_again(raw: Any) -> None:
    lying = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\npicture"
    server = raw([lying, b"never"], [ok(b"next")])
    with client(server.address) as fetch:
        assert fetch.get(URL, 10).body == b"pic"
        assert fetch.get(URL, 10).body == b"next"
    assert server.accepted == 2


def test_a_connection_that_broke_in_use_is_named_as_such_and_a_fresh_one_is_not(raw: Any) -> None:
    server = raw([ok(b"one"), b""], [b""], [ok(b"two")])
    with client(server.address) as fetch:
        assert fetch.get(URL, 10).body == b"one"
        failures = []
        for fresh in (False, True):
            with pytest.raises(Failure) as failure:
                fetch.get(URL, 10, fresh=fresh)
            failures.append((failure.value.status, failure.value.reused))
        assert failures == [("connection_reset", True), ("connection_reset", False)]
        assert fetch.get(URL, 10).body == b"two"


@settings(max_examples=60, deadline=None)
@given(
    fields=st.lists(
        st.tuples(st.from_regex(r"[A-Za-z-]{1,9}", fullmatch=True), st.text("ab ,;:=\xe9\xff", max_size=9))
    ),
    ending=st.sampled_from(["\r\n", "\n"]),
    fold=st.booleans(),
)
def test_headers_are_read_whatever_their_number_line_ends_and_folding(
    fields: list[tuple[str, str]], ending: str, fold: bool
) -> None:
    lines = [f"{name}:{ending} {value}" if fold else f"{name}: {value}" for name, value in fields]
    headers = read_headers(io.BytesIO(ending.join([*lines, "", "body"]).encode("latin-1")))
    assert [(name, value) for name, value in headers.items()] == [(name, value.strip()) for name, value in fields]


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "deflate"])
def test_a_compressed_body_is_unpacked_and_no_further_than_the_limit(raw: Any, encoding: str) -> None:
    pack = zlib.compress if encoding == "deflate" else gzip.compress
    bomb = pack(bytes(50_000_000))
    assert len(bomb) < 100_000
    header = f"Content-Encoding: {encoding}"
    server = raw([ok(pack(b"picture"), header)], [ok(bomb, header)], [ok(pack(b"picture" * 99)[:-9], header)])
    with client(server.address) as fetch:
        assert fetch.get(URL, 100_000).body == b"picture"
    with client(server.address) as fetch, pytest.raises(Failure) as failure:
        fetch.get(URL, 100_000)
    assert failure.value.status == "too_large"
    with client(server.address) as fetch, pytest.raises(Failure) as failure:
        fetch.get(URL, 100_000)
    assert failure.value.status == "incomplete_transfer"


@settings(max_examples=30, deadline=None)
@given(body=st.binary(max_size=3000), cuts=st.lists(st.integers(1, 500), max_size=8))
def test_a_body_in_chunks_is_put_together_and_the_connection_used_again(body: bytes, cuts: list[int]) -> None:
    chunks, rest = b"", body
    for cut in cuts:
        if piece := rest[:cut]:
            chunks += b"%x;note=1\r\n%s\r\n" % (len(piece), piece)
        rest = rest[cut:]
    if rest:
        chunks += b"%x\r\n%s\r\n" % (len(rest), rest)
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\nTrailer: x\r\n\r\n"
    server = Raw([answer, ok(b"next")])
    with client(server.address) as fetch:
        assert fetch.get(URL, 5000).body == body
        assert fetch.get(URL, 5000).body == b"next"
    server.listener.close()
    assert server.accepted == 1


@settings(max_examples=60, deadline=None)
@given(noise=st.binary(max_size=300), start=st.sampled_from([b"", b"HTTP/1.1 200 OK\r\n", ok(b"body")[:-2]]))
def test_whatever_a_server_says_is_an_answer_or_a_failure(noise: bytes, start: bytes) -> None:
    server = Raw([start + noise])
    with client(server.address, 1.0, 1.0) as fetch:
        try:
            outcome = fetch.get(URL, 1000).status >= 200
        except Failure as failure:
            outcome = failure.host == "a.test"
    server.listener.close()
    assert outcome


def test_headers_that_drip_end_at_the_deadline(raw: Any) -> None:
    listener = socket.create_server(("127.0.0.1", 0))

    def drip() -> None:
        sock, _ = listener.accept()
        with sock:
            sock.recv(1000)
            try:
                for byte in b"HTTP/1.1 200 OK\r\nX-Long: " + b"a" * 100:
                    sock.sendall(bytes([byte]))
                    time.sleep(0.05)
            except OSError:
                return

    threading.Thread(target=drip, daemon=True).start()
    start = time.monotonic()
    with client(f"127.0.0.1:{listener.getsockname()[1]}", 1.0, 0.4) as fetch, pytest.raises(Failure) as failure:
        fetch.get(URL, 10)
    listener.close()
    assert failure.value.status == "timeout"
    assert time.monotonic() - start < 2


def test_a_body_above_the_limit_is_refused_by_its_announced_length_or_cut_on_request(web: Any) -> None:
    web.serve("/big", b"0123456789")
    with client(web.address) as fetch:
        with pytest.raises(Failure) as failure:
            fetch.get("http://a.test/big", 9)
        assert failure.value.status == "too_large"
        assert fetch.get("http://a.test/big", 4, truncate=True).body == b"0123"
        assert fetch.get("http://a.test/big", 10).body == b"0123456789"
