"""HTTP/1.1 client over checked addresses, with size and time limits and connections kept alive.

Redirects are not followed here: the caller decides about them.
"""

from __future__ import annotations

import email.utils
import http.client
import select
import ssl
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import Message
from typing import Any, cast
from urllib.parse import urlsplit

from stages.download.address import Dialer
from stages.download.content_encoding import decoded
from stages.download.outcome import Failure, Reason, network_reason
from stages.download.response import Incoming, TolerantResponse, tokens
from stages.download.url import host_of, redirect_url

_PIECE = 1 << 18
#: An unused body is still read up to this size, so that its connection can be reused.
_DRAIN = 1 << 16
#: Maximum number of idle connections, and the seconds after which one is no longer reused.
_IDLE, _IDLE_SECONDS = 256, 20.0
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
        fresh: bool = False,
    ) -> Response:
        """The response to a GET of a URL made by `address.request_url`. Raises Failure if there is no HTTP response.

        A body above `max_bytes` is `too_large` or, with `truncate`, truncated. `refuse` is called with the headers of a
        2xx response; if it returns a non-empty string, that is the detail of an `opt_out`, and the body is not read.
        With `fresh`, no connection is reused, so that a failure is certainly that of this request: see
        `Failure.reused`.
        """
        parts = urlsplit(url)
        origin = f"{parts.scheme}://{parts.netloc}"
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        headers = {**self._headers, "Accept": accept}
        host = host_of(url)
        idle = None if fresh else self._reusable(origin)
        connection = idle or self._connection(parts.scheme, parts.netloc)
        incoming: list[Incoming] = []
        try:
            with self._send(connection, target, headers, incoming) as response:
                result = self._read(response, url, max_bytes, refuse, truncate)
                reusable = (response.isclosed() or response.length == 0) and not response.will_close
        except BaseException as error:
            connection.close()
            if isinstance(error, Failure):
                error.host = error.host or host
                raise
            reason = network_reason(error) if isinstance(error, Exception) else None
            if reason is None:
                raise
            silent = isinstance(error, ConnectionError) and not any(it.received for it in incoming)
            raise Failure(reason, host=host, reused=silent and idle is not None) from error
        self._release(origin, connection, reusable and not incoming[-1].surplus)
        return result

    def _send(
        self,
        connection: http.client.HTTPConnection,
        target: str,
        headers: dict[str, str],
        incoming: list[Incoming],
    ) -> TolerantResponse:
        """Send a request; returns the response, once its headers are read, and appends to `incoming` its source."""
        deadline = time.monotonic() + self._total

        def response(sock: Any, **kwargs: Any) -> TolerantResponse:
            incoming.append(Incoming(sock, self._timeout, deadline))
            return TolerantResponse(incoming[-1], **kwargs)  # type: ignore[arg-type]

        connection.response_class = response  # type: ignore[assignment]
        if connection.sock is not None:
            connection.sock.settimeout(self._timeout)
        connection.request("GET", target, headers=headers)
        return cast(TolerantResponse, connection.getresponse())

    def _read(
        self,
        response: TolerantResponse,
        url: str,
        max_bytes: int,
        refuse: Callable[[Message], str] | None,
        truncate: bool,
    ) -> Response:
        status, headers = response.status, response.headers
        if status < 200:  # the server speaks another protocol from here on
            raise Failure(Reason.BAD_RESPONSE)
        if status >= 300:
            self._drain(response)
            listed = headers.get("Location", "") if status in _REDIRECTS else ""
            return Response(status, headers, location=redirect_url(url, listed) if listed else "")
        if refuse is not None and (why := refuse(headers)):
            self._drain(response)
            raise Failure(Reason.OPT_OUT, why)
        return Response(status, headers, _body(response, max_bytes, truncate))

    def _drain(self, response: TolerantResponse) -> None:
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


def _body(response: TolerantResponse, max_bytes: int, truncate: bool) -> bytes:
    """The whole body, decompressed. Raises Failure (`too_large`, `incomplete_transfer`, `bad_response`)."""
    if response.length is not None and response.length > max_bytes and not truncate:
        raise _too_large(max_bytes)
    pieces: list[bytes] = []
    size = 0
    # A short body of known length takes a single read.
    short = response.length is not None and response.length <= _PIECE
    while piece := response.read() if short else response.read1(_PIECE):
        pieces.append(piece)
        size += len(piece)
        if short or size > max_bytes:
            break
    if size <= max_bytes and response.length:
        raise Failure(Reason.INCOMPLETE_TRANSFER)
    if size > max_bytes and not truncate:
        raise _too_large(max_bytes)
    encodings = [*tokens(response.headers.get_all("Content-Encoding")), *response.transfer_codings]
    body = decoded(b"".join(pieces), encodings, max_bytes, whole=size <= max_bytes)
    if len(body) > max_bytes and not truncate:
        raise _too_large(max_bytes)
    return body[:max_bytes]


def _too_large(max_bytes: int) -> Failure:
    return Failure(Reason.TOO_LARGE, f"larger than {max_bytes} bytes")


def retry_after(header: str | None) -> float:
    """Seconds to wait according to a Retry-After header (a number or an HTTP date); 0 if it is missing or invalid."""
    text = (header or "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:18])
    try:
        when = email.utils.parsedate_to_datetime(text)
        when = when if when.tzinfo else when.replace(tzinfo=UTC)
        return max(0.0, (when - datetime.now(UTC)).total_seconds())
    except (ValueError, OverflowError):
        return 0.0
