"""URLs as they are requested: checked, escaped, and in the normal form that robots.txt is compared with."""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import quote, unquote, urljoin, urlsplit, urlunsplit

from stages.download.outcome import Failure, Reason

# Everything RFC 3986 allows, and "%" because lists contain URLs that are already escaped.
_SAFE = "%/:=&?~#+!$,;'@()*[]"
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_DELIMITERS = frozenset("%:/?#[]@\\")
_DEFAULT_PORT = {"http": 80, "https": 443}


def request_url(listed: str) -> str:
    """A URL as it is sent, in the normal form of RFC 3986, section 6.2.2 and 6.2.3.

    Characters that no URL may contain are escaped, an international host name is in Punycode, a default port is left
    out. The path has no dot segments, however they were written, and no escaped letters or digits, so that what
    robots.txt forbids cannot be spelled differently. The query is sent as listed, since it may be signed.

    Raises Failure (`invalid_url`, `forbidden_scheme`).
    """
    try:
        parts = urlsplit(listed.strip())
        port = parts.port
        host = parts.hostname or ""
        if "%" in host and ":" not in host:  # escaped UTF-8, as in a Location header; in an IPv6 address a zone
            host = unquote(host, errors="strict").lower()
            if not _DELIMITERS.isdisjoint(host):
                raise Failure(Reason.INVALID_URL)
        host = host.encode("idna").decode("ascii")
    except (ValueError, UnicodeError) as error:
        raise Failure(Reason.INVALID_URL) from error
    if parts.scheme not in _DEFAULT_PORT:
        raise Failure(Reason.FORBIDDEN_SCHEME)
    if not host or any(c.isspace() or not c.isprintable() for c in host):
        raise Failure(Reason.INVALID_URL)
    # User and password in a URL are left out: urllib would treat them as a part of the host name.
    bracketed = f"[{host}]" if ":" in host else host
    netloc = bracketed if port is None or port == _DEFAULT_PORT[parts.scheme] else f"{bracketed}:{port}"
    path = remove_dot_segments(_normal_escapes(quote(parts.path, _SAFE))) or "/"
    return urlunsplit((parts.scheme, netloc, path, quote(parts.query, _SAFE), ""))


def redirect_url(base: str, location: str) -> str:
    """A Location header, decoded as Latin-1, as a URL to request. Raises Failure.

    Its reason is `forbidden_scheme` or `invalid_url`.
    """
    # Bytes of other encodings, such as the UTF-8 that many servers send, are percent-escaped unchanged.
    escaped = quote(location.strip(), safe=_SAFE, encoding="latin-1")
    try:
        return request_url(_resolved(base, escaped))
    except ValueError as error:
        raise Failure(Reason.INVALID_URL) from error


def _resolved(base: str, reference: str) -> str:
    """An URL reference resolved against the URL that it came from (RFC 3986, section 5.2)."""
    start, parts = urlsplit(base), urlsplit(reference)
    if parts.path and not parts.path.startswith("/") and not parts.netloc and parts.scheme in ("", start.scheme):
        # `urljoin` would drop the empty segments of the folder.
        path = f"{start.path.rpartition('/')[0]}/{parts.path}"
        return urlunsplit((start.scheme, start.netloc, path, parts.query, ""))
    return urljoin(base, reference)


def remove_dot_segments(path: str) -> str:
    """A path without the segments `.` and `..` (RFC 3986, section 5.2.4); empty segments are left as they are."""
    if "." not in path:
        return path
    kept: list[str] = []
    *segments, last = path.split("/")
    for segment in segments:
        if segment == "..":
            # The first, empty segment stands for the slash at the start, above which nothing leads.
            del kept[max(1, len(kept) - 1) :]
        elif segment != ".":
            kept.append(segment)
    if last == "..":
        del kept[max(1, len(kept) - 1) :]
    return "/".join([*kept, "" if last in (".", "..") else last])


def _normal_escapes(text: str) -> str:
    """Percent-encodings of unreserved characters decoded, and the others in upper case (RFC 3986, section 6.2.2)."""

    def normal(escape: re.Match[str]) -> str:
        character = chr(int(escape[1], 16))
        return character if character in _UNRESERVED else escape[0].upper()

    return _ESCAPE.sub(normal, text) if "%" in text else text


@lru_cache(maxsize=65_536)
def host_of(url: str) -> str:
    """Lower-case host name of a URL that :func:`request_url` made, without a final dot."""
    return (urlsplit(url).hostname or "").rstrip(".")
