"""Outcomes of an attempt to fetch an image: one reason each, and whether it is transient."""

from __future__ import annotations

import errno
import http.client
import socket
import ssl
from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """`status` of a row of attempts. An HTTP error is `http_<code>` and not listed here."""

    SUCCESS = "success"
    TIMEOUT = "timeout"
    CONNECT_TIMEOUT = "connect_timeout"
    CONNECTION_REFUSED = "connection_refused"
    CONNECTION_RESET = "connection_reset"
    UNREACHABLE = "unreachable"
    DNS = "dns"
    TLS = "tls"
    TLS_CERTIFICATE = "tls_certificate"
    BAD_RESPONSE = "bad_response"
    INCOMPLETE_TRANSFER = "incomplete_transfer"
    UNSUPPORTED_ENCODING = "unsupported_encoding"
    RATE_LIMITED = "rate_limited"
    REDIRECT_LOOP = "redirect_loop"
    TOO_MANY_REDIRECTS = "too_many_redirects"
    FORBIDDEN_SCHEME = "forbidden_scheme"
    FORBIDDEN_ADDRESS = "forbidden_address"
    INVALID_URL = "invalid_url"
    OPT_OUT = "opt_out"
    ROBOTS = "robots"
    ROBOTS_UNAVAILABLE = "robots_unavailable"
    FORGOTTEN = "forgotten"
    HASH_MISMATCH = "hash_mismatch"
    TOO_LARGE = "too_large"
    TOO_SMALL = "too_small"
    NOT_AN_IMAGE = "not_an_image"
    UNSUPPORTED_FORMAT = "unsupported_format"
    TRUNCATED = "truncated"
    CORRUPT = "corrupt"
    TOO_MANY_PIXELS = "too_many_pixels"
    MISSING_FILE = "missing_file"
    UNREADABLE_FILE = "unreadable_file"


#: Failures of the connection itself: they concern the host and not the requested URL.
CONNECT = frozenset(
    {Reason.DNS, Reason.CONNECTION_REFUSED, Reason.CONNECT_TIMEOUT, Reason.UNREACHABLE},
)
#: Transient failures that another request of the same run could not mend; a later one may.
NOT_NOW = frozenset({Reason.RATE_LIMITED, Reason.UNSUPPORTED_ENCODING})
#: Transient failures: the same request may succeed later.
TRANSIENT = (
    CONNECT
    | NOT_NOW
    | {
        Reason.TIMEOUT,
        Reason.CONNECTION_RESET,
        Reason.TLS,
        Reason.BAD_RESPONSE,
        Reason.INCOMPLETE_TRANSFER,
        Reason.ROBOTS_UNAVAILABLE,
    }
)
#: Transient HTTP codes: timeouts, rate limits, gateways and overload (RFC 9110 and 6585; 52x are Cloudflare's).
TRANSIENT_HTTP = frozenset({408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524})

# Errors of `connect` for networks that cannot be reached from here, including a firewall's refusal.
_NO_ROUTE = frozenset(
    {
        errno.EHOSTUNREACH,
        errno.EHOSTDOWN,
        errno.ENETUNREACH,
        errno.ENETDOWN,
        errno.EADDRNOTAVAIL,
        errno.EACCES,
        errno.EPERM,
        errno.EINVAL,
    }
)

_EXPLANATION = {
    Reason.TIMEOUT: "the server did not answer in time",
    Reason.CONNECT_TIMEOUT: "no connection in time",
    Reason.CONNECTION_REFUSED: "the host refuses connections",
    Reason.CONNECTION_RESET: "the server broke the connection",
    Reason.UNREACHABLE: "no route to the host",
    Reason.DNS: "the host name does not resolve",
    Reason.TLS: "the secure connection failed",
    Reason.TLS_CERTIFICATE: "the server's certificate is not valid",
    Reason.BAD_RESPONSE: "the answer is not HTTP",
    Reason.INCOMPLETE_TRANSFER: "the connection ended before the announced length",
    Reason.UNSUPPORTED_ENCODING: "compressed in a way for which no decoder is installed",
    Reason.RATE_LIMITED: "the host asks to wait longer than download.max_retry_after (Retry-After)",
    Reason.REDIRECT_LOOP: "redirected to an address already visited",
    Reason.TOO_MANY_REDIRECTS: "redirected too often",
    Reason.FORBIDDEN_SCHEME: "neither http nor https",
    Reason.FORBIDDEN_ADDRESS: "the host is on a private, loopback or link-local address",
    Reason.INVALID_URL: "not a URL that can be requested",
    Reason.OPT_OUT: "the server forbids use",
    Reason.ROBOTS: "robots.txt forbids it",
    Reason.ROBOTS_UNAVAILABLE: "robots.txt could not be read",
    Reason.FORGOTTEN: "forgotten on request",
    Reason.HASH_MISMATCH: "the bytes are not those the source lists",
    Reason.MISSING_FILE: "no such file",
    Reason.UNREADABLE_FILE: "the file cannot be read",
    Reason.NOT_AN_IMAGE: "the content is no known image format",
    Reason.TRUNCATED: "the image data end early",
    Reason.CORRUPT: "the image data cannot be decoded",
}

_REMEDY: dict[str, str] = {
    Reason.UNSUPPORTED_ENCODING: "the packages brotli (1.2 or newer) and zstandard decode br and zstd",
    Reason.FORBIDDEN_ADDRESS: "name hosts or networks that are to be reached in download.allow_private_hosts",
    Reason.UNSUPPORTED_FORMAT: "download.keep_formats has the formats that are stored",
    Reason.TOO_SMALL: "the limit is download.min_bytes",
    Reason.TOO_LARGE: "the limit is download.max_bytes",
    Reason.TOO_MANY_PIXELS: "the limit is download.max_pixels",
    Reason.HASH_MISMATCH: "download.hash_mismatch=keep stores images that have changed",
}


@dataclass(eq=False)
class Failure(Exception):
    """An image could not be fetched."""

    status: str
    """A :class:`Reason`, or `http_<code>`."""
    detail: str = ""
    """Further details, without times, ports and addresses (rows must be equal on every run)."""
    host: str = ""
    """The host that failed: after redirects not necessarily the listed one."""
    retry_after: float = 0.0
    """Seconds to wait as requested by the server."""
    reused: bool = False
    """Whether a connection kept alive broke before any byte of the response: perhaps the server had closed it."""

    @property
    def transient(self) -> bool:
        """Whether the same request may succeed later."""
        return is_transient(self.status)

    @property
    def explanation(self) -> str:
        """One line for the `error` column."""
        if self.detail:
            return self.detail
        if self.status.startswith("http_"):
            return f"the server answered {self.status[5:]}"
        return _EXPLANATION.get(Reason(self.status), self.status)

    def __str__(self) -> str:
        return f"{self.status}: {self.explanation}"


def is_transient(status: str) -> bool:
    """Whether an attempt with this status may succeed later."""
    if status.startswith("http_"):
        return int(status[5:]) in TRANSIENT_HTTP
    return status in TRANSIENT


def remedy(status: str) -> str:
    """What to change against a status that a key of the configuration decides about; empty for any other."""
    return _REMEDY.get(status, "")


def network_reason(error: BaseException, connecting: bool = False) -> Reason | None:
    """The reason for a network exception, or None for any other (a bug, or a problem of this machine).

    `connecting` distinguishes a failed connection from a missing response.
    """
    match error:
        case ssl.SSLCertVerificationError():
            return Reason.TLS_CERTIFICATE
        case ssl.SSLError():
            return Reason.TLS
        case socket.gaierror():
            return Reason.DNS
        case TimeoutError():
            return Reason.CONNECT_TIMEOUT if connecting else Reason.TIMEOUT
        case ConnectionRefusedError():
            return Reason.CONNECTION_REFUSED
        case ConnectionError():  # RemoteDisconnected is one of these and an HTTPException too
            return Reason.CONNECTION_RESET
        case http.client.InvalidURL() | UnicodeError():
            return Reason.INVALID_URL
        case http.client.IncompleteRead():
            return Reason.INCOMPLETE_TRANSFER
        case http.client.HTTPException():
            return Reason.BAD_RESPONSE
        case OSError() if error.errno in _NO_ROUTE:
            return Reason.UNREACHABLE
    return None
