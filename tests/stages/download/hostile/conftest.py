"""A server that may say anything at all, and the one road every hostile thing must take: the real download stage."""

from __future__ import annotations

import hashlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from stages.imaging.decode import decode_rgb

#: What a route does with a connection on which a request was read.
Behaviour = Callable[[socket.socket], None]


class RawWeb:
    """Answers each path with bytes of the test's own, or with any behaviour on the bare socket; else with 404."""

    def __init__(self) -> None:
        self.routes: dict[str, Behaviour] = {}
        self.requests: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:  # closed
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                request = b""
                while b"\r\n\r\n" not in request:
                    piece = connection.recv(65_536)
                    if not piece:
                        return
                    request += piece
                self.requests.append(request)
                path = request.split(b" ")[1].decode("latin-1")
                self.routes.get(path, _not_found)(connection)
                connection.shutdown(socket.SHUT_WR)
                connection.settimeout(5)
                while connection.recv(65_536):  # close with unread input would reset the connection
                    pass
            except OSError:  # the client had enough
                return

    def respond(self, path: str, answer: bytes) -> None:
        """Send exactly these bytes, then close."""
        self.routes[path] = lambda connection: connection.sendall(answer)

    def serves(self, path: str, body: bytes, head: str = "HTTP/1.1 200 OK") -> None:
        """A well-formed answer; `head` may hold more header lines."""
        lines = f"{head}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        self.respond(path, lines.encode("latin-1") + body)

    def close(self) -> None:
        self._listener.close()


def _not_found(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


@pytest.fixture
def raw_web() -> Iterator[RawWeb]:
    web = RawWeb()
    yield web
    web.close()


@pytest.fixture
def reset() -> Behaviour:
    """Breaks the connection so that the client sees a reset and not an end."""

    def behave(connection: socket.socket) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()

    return behave


@pytest.fixture
def ended(
    download: Callable[..., Any], pairs_of: Callable[..., Any], attempts: Callable[..., Any]
) -> Callable[..., dict[str, dict[str, Any]]]:
    """Runs the stage over URLs: `ended(urls, hosts, **settings)`; rows of attempts by URL.

    Whatever was stored must be what the row says, and decode to the size the row says.
    """

    def run(urls: list[str], hosts: Mapping[str, str], **settings: Any) -> dict[str, dict[str, Any]]:
        artifact = download(pairs_of(urls), hosts, **settings)
        rows: dict[str, dict[str, Any]] = attempts(artifact)
        assert sorted(rows) == sorted(set(urls))
        raw = artifact.path("raw-00000.tar").read_bytes()
        for url, row in rows.items():
            if row["status"] != "success":
                assert row["error"], url
                assert row["length"] is None, url
                continue
            data = raw[row["offset"] : row["offset"] + row["length"]]
            assert hashlib.sha256(data).hexdigest() == row["sha256"], url
            assert decode_rgb(data).size == (row["width"], row["height"]), url
        return rows

    return run


@pytest.fixture
def fetched(raw_web: RawWeb, ended: Callable[..., Any]) -> Callable[..., dict[str, dict[str, Any]]]:
    """Serves bodies by name over HTTP and downloads them: `fetched({"x.png": bytes}, **settings)`; rows by name."""

    def run(bodies: Mapping[str, bytes], **settings: Any) -> dict[str, dict[str, Any]]:
        for name, body in bodies.items():
            raw_web.serves(f"/{name}", body)
        urls = {f"http://images.test/{name}": name for name in bodies}
        rows = ended(list(urls), {"images.test": raw_web.address}, **{"min_bytes": 1, "threads": 4, **settings})
        return {urls[url]: row for url, row in rows.items()}

    return run
