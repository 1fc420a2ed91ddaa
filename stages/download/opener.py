"""The urllib opener that img2dataset's `download_image` is made to use: bounded, guarded, and exact about failures."""

from __future__ import annotations

import email.utils
import http.client
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from stages.download.address import Dialer, host_of, request_url
from stages.download.outcome import Failure, Reason, network_reason

_PIECE = 1 << 18


@dataclass(frozen=True)
class Limits:
    """What one answer may cost."""

    max_bytes: int
    total_seconds: float
    max_redirects: int


class BoundedResponse(http.client.HTTPResponse):
    """An answer whose body is never read beyond its limits, and never taken for whole when it is cut."""

    def __init__(self, *args: Any, limits: Limits, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._limits = limits
        self._deadline = time.monotonic() + limits.total_seconds

    def read(self, amt: int | None = None) -> bytes:
        """The body. Raises Failure (`too_large`, `timeout`, `incomplete_transfer`, `connection_reset`)."""
        if amt is not None:
            return super().read(amt)
        if self.length is not None and self.length > self._limits.max_bytes:
            raise self._too_large()
        pieces: list[bytes] = []
        size = 0
        while piece := self.read1(_PIECE):
            pieces.append(piece)
            size += len(piece)
            if size > self._limits.max_bytes:
                raise self._too_large()
            if time.monotonic() > self._deadline:
                raise Failure(Reason.TIMEOUT)
        if self.length:
            raise Failure(Reason.INCOMPLETE_TRANSFER)
        return b"".join(pieces)

    def _too_large(self) -> Failure:
        self.close()
        return Failure(Reason.TOO_LARGE, f"larger than {self._limits.max_bytes} bytes")


class _Body:
    """What `download_image` sees of an answer: its headers and its body, with typed failures."""

    def __init__(self, response: http.client.HTTPResponse, host: str) -> None:
        self._response = response
        self._host = host
        self.headers = response.headers

    def __enter__(self) -> _Body:
        return self

    def __exit__(self, *_: object) -> None:
        self._response.close()

    def read(self) -> bytes:
        with _typed(self._host):
            return self._response.read()


class _Http(urllib.request.HTTPHandler, urllib.request.HTTPSHandler):
    """http and https over sockets of our dialer."""

    def __init__(self, dialer: Dialer, limits: Limits) -> None:
        # One for all: loading the certificates anew for each connection would cost more than most images do.
        context = ssl.create_default_context()
        context.set_alpn_protocols(["http/1.1"])
        urllib.request.HTTPSHandler.__init__(self, context=context)
        self._dialer = dialer
        self._limits = limits

    def _prepared(self, kind: type[http.client.HTTPConnection], host: str, **kwargs: Any) -> Any:
        connection: Any = kind(host, **kwargs)
        connection._create_connection = self._dialer.connect
        connection.response_class = partial(BoundedResponse, limits=self._limits)
        return connection

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(partial(self._prepared, http.client.HTTPConnection), req)  # type: ignore[arg-type]

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        context = self._context  # type: ignore[attr-defined]
        return self.do_open(  # type: ignore[arg-type]
            partial(self._prepared, http.client.HTTPSConnection),  # type: ignore[arg-type]
            req,
            context=context,
        )


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to http and https only, and tells a loop from a long chain."""

    max_redirections = 1000  # the base class's own limit, which does not say which of the two it met: ours is lower

    def __init__(self, limits: Limits) -> None:
        self._max = limits.max_redirects

    def http_error_302(self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any) -> Any:
        """One hop. Raises Failure."""
        if urlsplit(headers.get("Location", "")).scheme.lower() not in ("", "http", "https"):
            raise Failure(Reason.FORBIDDEN_SCHEME)
        return super().http_error_302(req, fp, code, msg, headers)

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        """The next request of a chain. Raises Failure."""
        newurl = request_url(newurl)
        visited = getattr(req, "redirect_dict", {})
        if newurl in visited or newurl == req.full_url:
            raise Failure(Reason.REDIRECT_LOOP)
        if len(visited) >= self._max:
            raise Failure(Reason.TOO_MANY_REDIRECTS)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class Opener(urllib.request.OpenerDirector):
    """Opens http(s) URLs; every failure of the network or the server is raised as a Failure.

    No proxy is used, whatever the environment says: behind one, addresses could not be checked.
    """

    def __init__(self, dialer: Dialer, limits: Limits, forbids: Callable[[http.client.HTTPMessage], bool]) -> None:
        """`forbids` tells from an answer's headers whether the image may not be used."""
        super().__init__()
        self._forbids = forbids
        for handler in (
            _Http(dialer, limits),
            _Redirects(limits),
            urllib.request.HTTPErrorProcessor(),
            urllib.request.HTTPDefaultErrorHandler(),
        ):
            self.add_handler(handler)

    def open(self, fullurl: Any, data: Any = None, timeout: Any = None) -> Any:
        """As the base class; `timeout` in seconds is required. Called again for each redirect."""
        request = fullurl if isinstance(fullurl, urllib.request.Request) else urllib.request.Request(fullurl)
        host = host_of(request.full_url)
        with _typed(host):
            answer = super().open(request, data, timeout)
        if isinstance(answer, _Body):  # a redirect was followed within, and looked at there
            return answer
        if self._forbids(answer.headers):
            answer.close()
            raise Failure(Reason.OPT_OUT)
        return _Body(answer, host)


@contextmanager
def _typed(host: str) -> Iterator[None]:
    """Turns what urllib, http.client and sockets raise into Failures; anything else is a bug and passes."""
    try:
        yield
    except urllib.error.HTTPError as error:
        code, headers = error.code, error.headers
        error.close()
        raise Failure(f"http_{code}", host=host, retry_after=retry_after(headers.get("Retry-After"))) from None
    except urllib.error.URLError as error:
        # urllib wraps what happens while the request is sent.
        raise _failure(error.reason if isinstance(error.reason, BaseException) else error, host) from error
    except (OSError, http.client.HTTPException, UnicodeError) as error:
        raise _failure(error, host) from error


def _failure(error: BaseException, host: str) -> BaseException:
    reason = network_reason(error)
    return error if reason is None else Failure(reason, host=host)


def retry_after(header: str | None) -> float:
    """Seconds a Retry-After header asks for (a number or an HTTP date); 0 when there is none or it is nonsense."""
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


@contextmanager
def installed(opener: Opener) -> Iterator[None]:
    """Make `urllib.request.urlopen` use the opener within the block, in all threads of this process."""
    before = urllib.request._opener  # type: ignore[attr-defined]
    urllib.request.install_opener(opener)
    try:
        yield
    finally:
        urllib.request._opener = before  # type: ignore[attr-defined]
