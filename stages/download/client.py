"""HTTP/1.1 client over checked addresses, with size and time limits and connections kept alive.

Redirects are not followed here: the caller decides about them.
"""

from __future__ import annotations

import email.utils
import http.client
import io
import select
import socket
import ssl
import threading
import time
import zlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import Message
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

from stages.download.address import Dialer, host_of, request_url
from stages.download.outcome import Failure, Reason, network_reason

_PIECE = 1 << 18
#: An unused body is still read up to this size, so that its connection can be reused.
_DRAIN = 1 << 16
#: Maximum number of idle connections, and the seconds after which one is no longer reused.
_IDLE, _IDLE_SECONDS = 256, 20.0
#: Content-Encoding -> the window size by which zlib selects the format.
_WINDOW = {"gzip": 31, "x-gzip": 31, "deflate": 15}
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


@dataclass(frozen=True)
class Response:
    """A server's response to one request."""

    status: int
    headers: Message
    body: bytes = b""
    """Empty unless the status is 2xx."""
    location: str = ""
    """Target of a redirect; empty for all other responses."""


class _DeadlineReader(io.RawIOBase):
    """A connection's incoming bytes, with a deadline for the whole response besides the time-out for each read."""

    def __init__(self, sock: socket.socket, timeout: float, deadline: float) -> None:
        self._raw: Any = sock.makefile("rb", buffering=0)  # keeps the socket open until this is closed
        self._sock = sock
        self._timeout = timeout
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._sock.settimeout(min(self._timeout, left))
        return int(self._raw.readinto(buffer))

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()


class _ResponseSocket:
    """The socket-like object from which `http.client` reads a response."""

    def __init__(self, sock: socket.socket, timeout: float, deadline: float) -> None:
        self._arguments = sock, timeout, deadline

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_DeadlineReader(*self._arguments), 1 << 16)


class Client:
    """Makes the requests of one partition. Thread-safe.

    Proxies configured in the environment are ignored: behind one, addresses could not be checked.
    """

    def __init__(self, dialer: Dialer, timeout: float, total_timeout: float, user_agent: str) -> None:
        """`timeout` in seconds for connecting and for each read, `total_timeout` for the whole response."""
        self._dialer = dialer
        self._timeout = timeout
        self._total = total_timeout
        self._headers = {"User-Agent": user_agent, "Accept-Encoding": "identity"}
        self._lock = threading.Lock()
        self._idle: OrderedDict[int, tuple[str, float, http.client.HTTPConnection]] = OrderedDict()
        self._tls: ssl.SSLContext | None = None

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        for _origin, _since, connection in self._idle.values():
            connection.close()
        self._idle.clear()

    def get(
        self,
        url: str,
        max_bytes: int,
        accept: str = "*/*",
        refuse: Callable[[Message], str] | None = None,
        truncate: bool = False,
    ) -> Response:
        """The response to a GET of a URL made by `address.request_url`. Raises Failure if there is no HTTP response.

        A body above `max_bytes` is `too_large` or, with `truncate`, truncated. `refuse` is called with the headers of a
        2xx response; if it returns a non-empty string, that is the detail of an `opt_out`, and the body is not read.
        """
        parts = urlsplit(url)
        origin = f"{parts.scheme}://{parts.netloc}"
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        headers = {**self._headers, "Accept": accept}
        host = host_of(url)
        connection = self._reusable(origin)
        try:
            if connection is not None:
                try:
                    response = self._send(connection, target, headers)
                except (ConnectionError, http.client.BadStatusLine):
                    connection.close()  # the server closed the idle connection, which is not the URL's failure
                    connection = None
            if connection is None:
                connection = self._connection(parts.scheme, parts.netloc)
                response = self._send(connection, target, headers)
            with response:
                result = self._read(response, url, max_bytes, refuse, truncate)
                reusable = (response.isclosed() or response.length == 0) and not response.will_close
        except BaseException as error:
            if connection is not None:
                connection.close()
            if isinstance(error, Failure):
                error.host = error.host or host
                raise
            reason = network_reason(error) if isinstance(error, Exception) else None
            if reason is None:
                raise
            raise Failure(reason, host=host) from error
        self._release(origin, connection, reusable)
        return result

    def _send(
        self, connection: http.client.HTTPConnection, target: str, headers: dict[str, str]
    ) -> http.client.HTTPResponse:
        deadline = time.monotonic() + self._total

        def response(sock: Any, **kwargs: Any) -> http.client.HTTPResponse:
            return http.client.HTTPResponse(_ResponseSocket(sock, self._timeout, deadline), **kwargs)  # type: ignore[arg-type]

        connection.response_class = response  # type: ignore[assignment]
        if connection.sock is not None:
            connection.sock.settimeout(self._timeout)
        connection.request("GET", target, headers=headers)
        return connection.getresponse()

    def _read(
        self,
        response: http.client.HTTPResponse,
        url: str,
        max_bytes: int,
        refuse: Callable[[Message], str] | None,
        truncate: bool,
    ) -> Response:
        status, headers = response.status, response.headers
        if status < 200:  # an interim response: the final one would be mistaken for the next request's
            raise Failure(Reason.BAD_RESPONSE)
        if status >= 300:
            self._drain(response)
            listed = headers.get("Location", "") if status in _REDIRECTS else ""
            return Response(status, headers, location=_absolute(url, listed) if listed else "")
        if refuse is not None and (why := refuse(headers)):
            self._drain(response)
            raise Failure(Reason.OPT_OUT, why)
        return Response(status, headers, _body(response, max_bytes, truncate))

    def _drain(self, response: http.client.HTTPResponse) -> None:
        if response.length is not None and response.length <= _DRAIN:
            response.read()

    def _connection(self, scheme: str, netloc: str) -> http.client.HTTPConnection:
        connection: http.client.HTTPConnection
        if scheme == "https":
            connection = http.client.HTTPSConnection(netloc, timeout=self._timeout, context=self._context())
        else:
            connection = http.client.HTTPConnection(netloc, timeout=self._timeout)
        connection._create_connection = self._dialer.connect  # type: ignore[attr-defined]
        return connection

    def _context(self) -> ssl.SSLContext:
        with self._lock:
            if self._tls is None:
                # Shared: loading the certificates for each connection would cost more than most images.
                self._tls = ssl.create_default_context()
                self._tls.set_alpn_protocols(["http/1.1"])
            return self._tls

    def _reusable(self, origin: str) -> http.client.HTTPConnection | None:
        with self._lock:
            newest = next((key for key in reversed(self._idle) if self._idle[key][0] == origin), None)
            if newest is None:
                return None
            _, since, connection = self._idle.pop(newest)
        # Anything that arrived since the last response, data or a close, makes the connection unusable.
        if time.monotonic() - since < _IDLE_SECONDS and connection.sock is not None:
            arrived = select.poll()
            arrived.register(connection.sock, select.POLLIN)
            if not arrived.poll(0):
                return connection
        connection.close()
        return None

    def _release(self, origin: str, connection: http.client.HTTPConnection, reusable: bool) -> None:
        if not reusable or connection.sock is None:
            connection.close()
            return
        with self._lock:
            self._idle[id(connection)] = (origin, time.monotonic(), connection)
            oldest = self._idle.popitem(last=False)[1][2] if len(self._idle) > _IDLE else None
        if oldest is not None:
            oldest.close()


def _absolute(base: str, location: str) -> str:
    """A Location header as a URL fit for a request. Raises Failure (`forbidden_scheme`, `invalid_url`)."""
    # Headers are decoded as Latin-1: bytes of other encodings are percent-escaped unchanged.
    try:
        return request_url(urljoin(base, quote(location.strip(), safe="%/:=&?~#+!$,;'@()*[]", encoding="latin-1")))
    except ValueError as error:
        raise Failure(Reason.INVALID_URL) from error


def _body(response: http.client.HTTPResponse, max_bytes: int, truncate: bool) -> bytes:
    """The whole body, decompressed. Raises Failure (`too_large`, `incomplete_transfer`, `bad_response`)."""
    if response.length is not None and response.length > max_bytes and not truncate:
        raise _too_large(max_bytes)
    names = [name.strip().lower() for name in response.headers.get("Content-Encoding", "").split(",")]
    # The request accepts `identity` only, but some servers compress anyway. Unknown encodings are left as they are.
    unzip = zlib.decompressobj(_WINDOW[names[0]]) if len(names) == 1 and names[0] in _WINDOW else None
    pieces: list[bytes] = []
    size = 0
    # A short body of known length takes a single read.
    whole = response.length is not None and response.length <= _PIECE
    while piece := response.read() if whole else response.read1(_PIECE):
        if unzip is not None:
            try:
                piece = unzip.decompress(piece, max_bytes + 1 - size)  # a small body can hold gigabytes
            except zlib.error as error:
                raise Failure(Reason.BAD_RESPONSE, "the body is not compressed as announced") from error
        pieces.append(piece)
        size += len(piece)
        if size > max_bytes:
            if truncate:
                return b"".join(pieces)[:max_bytes]
            raise _too_large(max_bytes)
        if whole:
            break
    if response.length or (unzip is not None and not unzip.eof):
        raise Failure(Reason.INCOMPLETE_TRANSFER)
    return b"".join(pieces)


def _too_large(max_bytes: int) -> Failure:
    return Failure(Reason.TOO_LARGE, f"larger than {max_bytes} bytes")


def retry_after(header: str | None) -> float:
    """Seconds to wait according to a Retry-After header (a number or an HTTP date); 0 if it is missing or invalid."""
    if not header:
        return 0.0
    try:
        return max(0.0, float(int(header)))
    except ValueError:
        pass
    try:
        when = email.utils.parsedate_to_datetime(header)
    except ValueError:
        return 0.0
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return max(0.0, (when - datetime.now(UTC)).total_seconds())
