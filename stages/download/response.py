"""Reads an HTTP/1.1 response as servers really send it: any number of headers, interim responses, folded lines."""

from __future__ import annotations

import http.client
import io
import socket
import time
from typing import Any

#: Maximum length of a header line, and of all headers of a response, in bytes; maximum number of lines.
_MAX_LINE, _MAX_HEAD, _MAX_LINES = 1 << 16, 1 << 20, 10_000
_SWITCHING_PROTOCOLS = 101
_BODILESS = frozenset({204, 304})


class _DeadlineReader(io.RawIOBase):
    """A connection's incoming bytes, with a deadline for the whole response besides the time-out for each read."""

    def __init__(self, sock: socket.socket, timeout: float, deadline: float) -> None:
        self._raw: Any = sock.makefile("rb", buffering=0)  # keeps the socket open until this is closed
        self._sock = sock
        self._timeout = timeout
        self._deadline = deadline
        self.received = 0
        self.ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self.ended:
            return 0
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._sock.settimeout(min(self._timeout, left))
        count = int(self._raw.readinto(buffer))
        self.received += count
        return count

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()


class Incoming(io.BufferedReader):
    """What a connection receives in answer to one request."""

    def __init__(self, sock: socket.socket, timeout: float, deadline: float) -> None:
        """`timeout` in seconds for each read; `deadline` on the monotonic clock for the whole."""
        self._reader = _DeadlineReader(sock, timeout, deadline)
        super().__init__(self._reader, 1 << 16)
        self.surplus = False
        """Once closed: whether more was received than belongs to the response."""

    @property
    def received(self) -> int:
        """Number of bytes received so far."""
        return self._reader.received

    def makefile(self, mode: str) -> Incoming:
        """Itself: `http.client` asks a socket for its file."""
        return self

    def close(self) -> None:
        """Close, and note in `surplus` what is left in the buffer."""
        if not self.closed:
            self._reader.ended = True
            self.surplus = bool(self.peek(1))
        super().close()


class TolerantResponse(http.client.HTTPResponse):
    """A response whose head is read by this module; `http.client` reads the body.

    The standard library gives up at 100 headers, takes every interim response but 100 for the final one, and leaves
    out all headers after a line without a colon, opt-outs included.
    """

    transfer_codings: tuple[str, ...] = ()
    """Transfer codings other than `chunked`, in lower case, in the order in which they were applied."""

    def begin(self) -> None:
        """Read status line and headers. Raises HTTPException, TimeoutError, ConnectionError."""
        if self.headers is not None:
            return
        while True:
            version, status, reason = self._read_status()  # type: ignore[attr-defined]
            headers = read_headers(self.fp)
            # Interim responses (100 Continue, 103 Early Hints, ...) precede the final one (RFC 9110, section 15.2).
            if status >= 200 or status == _SWITCHING_PROTOCOLS:
                break
        if not version.startswith("HTTP/1.") and version != "HTTP/0.9":
            raise http.client.UnknownProtocol(version)
        self.code = self.status = status
        self.reason = reason.strip()
        self.version = 10 if version in ("HTTP/1.0", "HTTP/0.9") else 11
        self.headers = self.msg = headers
        codings = [coding for coding in tokens(headers.get_all("Transfer-Encoding")) if coding != "identity"]
        self.transfer_codings = tuple(coding for coding in codings if coding != "chunked")
        self.chunked = "chunked" in codings and status not in _BODILESS
        self.chunk_left = None
        self.length = 0 if status in _BODILESS else None if self.chunked else _length(headers)
        self.will_close = (
            status == _SWITCHING_PROTOCOLS
            or self._check_close()  # type: ignore[attr-defined]
            or (self.length is None and not self.chunked)  # the end of the connection is that of the body
        )


def tokens(values: list[str] | None) -> list[str]:
    """The elements of a header that is a comma-separated list, in lower case; `values` has one string per line."""
    elements = (element.strip().lower() for value in values or () for element in value.split(","))
    return [element for element in elements if element]


def read_headers(file: Any) -> http.client.HTTPMessage:
    """The header lines up to the empty one, decoded as Latin-1; lines may end with a bare line feed.

    Folded lines are joined, lines without a colon left out. Raises HTTPException if the lines are too long or end
    before the empty one.
    """
    fields: list[list[str]] = []
    size = count = 0
    folds = False  # whether a line that starts with a blank continues the last field
    while (line := file.readline(_MAX_LINE + 1).decode("latin-1")) not in ("\r\n", "\n"):
        size, count = size + len(line), count + 1
        if len(line) > _MAX_LINE or size > _MAX_HEAD or count > _MAX_LINES:
            raise http.client.LineTooLong("headers")
        if not line.endswith("\n"):
            raise http.client.IncompleteRead(line.encode("latin-1"))
        if line[0] in " \t":
            if folds:
                fields[-1][1] = f"{fields[-1][1]} {line.strip()}".strip()
            continue
        name, colon, value = line.partition(":")
        folds = bool(colon and name.strip())
        if folds:
            fields.append([name.strip(), value.strip()])
    headers = http.client.HTTPMessage()
    for name, value in fields:
        headers[name] = value
    return headers


def _length(headers: http.client.HTTPMessage) -> int | None:
    """The announced length of the body; None if it is missing, or no number, or several different ones."""
    lengths = set(tokens(headers.get_all("Content-Length")))
    if len(lengths) != 1:
        return None
    (digits,) = lengths
    return int(digits[:18]) if digits.isascii() and digits.isdigit() else None
