"""Servers that break HTTP, never end, or lie about what they send: each ends in time and for its own reason."""

from __future__ import annotations

import gzip
import io
import socket
import time
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

_OUT = io.BytesIO()
Image.fromarray(np.random.default_rng(1).integers(0, 255, (40, 50, 3), dtype=np.uint8)).save(_OUT, "JPEG")
GOOD = _OUT.getvalue()


def answer(body: bytes = GOOD, *lines: str, status: str = "HTTP/1.1 200 OK", length: object = None) -> bytes:
    """A whole answer; `length` None takes the body's, an empty string leaves the header out."""
    stated = [] if length == "" else [f"Content-Length: {len(body) if length is None else length}"]
    return "\r\n".join([status, *stated, "Connection: close", *lines, "", ""]).encode("latin-1") + body


def chunked(*pieces: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    body = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    return answer(body + end, "Transfer-Encoding: chunked", length="")


def squeezed(data: bytes) -> bytes:
    pack = zlib.compressobj(9, wbits=31)
    return pack.compress(data) + pack.flush()


BOMB = squeezed(bytes(100_000_000))  # a hundred kilobytes
HALF = len(GOOD) // 2

CASES: dict[str, tuple[bytes, str]] = {
    "plain": (answer(), "success"),
    "http-1.0": (answer(status="HTTP/1.0 200 OK"), "success"),
    "no-reason-phrase": (answer(status="HTTP/1.1 200"), "success"),
    "phrase-not-ascii": (answer(status="HTTP/1.1 200 Tr\xe8s bien"), "success"),
    "content-type-html": (answer(GOOD, "Content-Type: text/html"), "success"),
    "content-type-nonsense": (answer(GOOD, "Content-Type: \x01\x02;;;=,"), "success"),
    "no-length": (answer(length=""), "success"),
    "chunked": (chunked(GOOD[:HALF], GOOD[HALF:]), "success"),
    "chunked-bytewise": (chunked(*(GOOD[at : at + 1] for at in range(len(GOOD)))), "success"),
    "chunked-with-trailer": (chunked(GOOD, end=b"0\r\nX-Check: 1\r\n\r\n"), "success"),
    "chunked-and-length": (
        answer(b"%x\r\n%s\r\n0\r\n\r\n" % (len(GOOD), GOOD), "Transfer-Encoding: chunked", length=5),
        "success",
    ),
    "chunked-cut-off": (chunked(GOOD[:HALF], end=b"ffff\r\nabc"), "incomplete_transfer"),
    "chunked-without-end": (chunked(GOOD, end=b""), "incomplete_transfer"),
    "chunked-size-not-hex": (chunked(GOOD[:HALF], end=b"zz\r\nabc\r\n0\r\n\r\n"), "incomplete_transfer"),
    "chunked-size-negative": (chunked(GOOD[:HALF], end=b"-5\r\nabc\r\n0\r\n\r\n"), "incomplete_transfer"),
    "chunked-size-enormous": (chunked(end=b"f" * 16 + b"\r\nabc"), "incomplete_transfer"),
    "chunked-size-line-endless": (chunked(end=b"1" * 100_000), "bad_response"),
    "chunked-but-is-not": (answer(GOOD, "Transfer-Encoding: chunked", length=""), "incomplete_transfer"),
    "length-too-long": (answer(length=len(GOOD) + 1), "incomplete_transfer"),
    "length-too-short": (answer(length=HALF), "truncated"),
    "length-zero": (answer(length=0), "too_small"),
    "length-negative": (answer(length=-1), "success"),
    "length-not-a-number": (answer(length="many"), "success"),
    "length-beyond-limit": (answer(length=10**15), "too_large"),
    "length-beyond-any-integer": (answer(length="9" * 400), "too_large"),
    "gzip": (answer(squeezed(GOOD), "Content-Encoding: gzip"), "success"),
    "deflate": (answer(zlib.compress(GOOD), "Content-Encoding: deflate"), "success"),
    "gzip-bomb": (answer(BOMB, "Content-Encoding: gzip"), "too_large"),
    "gzip-cut": (answer(squeezed(GOOD)[:-50], "Content-Encoding: gzip"), "incomplete_transfer"),
    "gzip-announced-only": (answer(GOOD, "Content-Encoding: gzip"), "success"),
    "gzip-not-announced": (answer(gzip.compress(GOOD)), "not_an_image"),
    "gzip-twice": (answer(squeezed(squeezed(GOOD)), "Content-Encoding: gzip, gzip"), "success"),
    "gzip-twice-in-two-lines": (
        answer(squeezed(squeezed(GOOD)), "Content-Encoding: X-Gzip", "Content-Encoding: GZIP"),
        "success",
    ),
    "gzip-bomb-twice": (answer(squeezed(BOMB), "Content-Encoding: gzip, gzip"), "too_large"),
    "gzip-in-members": (answer(squeezed(GOOD[:HALF]) + squeezed(GOOD[HALF:]), "Content-Encoding: gzip"), "success"),
    "gzip-and-garbage": (answer(squeezed(GOOD) + b"\0\0garbage", "Content-Encoding: gzip"), "success"),
    "gzip-of-countless-members": (answer(squeezed(b"") * 5000, "Content-Encoding: gzip"), "bad_response"),
    "deflate-raw": (answer(zlib.compress(GOOD, wbits=-15), "Content-Encoding: deflate"), "success"),
    "deflate-raw-cut": (
        answer(zlib.compress(GOOD, wbits=-15)[:-50], "Content-Encoding: deflate"),
        "incomplete_transfer",
    ),
    "deflate-raw-bomb": (answer(zlib.compress(bytes(9**8), wbits=-15), "Content-Encoding: deflate"), "too_large"),
    "deflate-in-gzip": (answer(squeezed(zlib.compress(GOOD)), "Content-Encoding: deflate, gzip"), "success"),
    "deflate-announced-only": (answer(GOOD, "Content-Encoding: deflate"), "bad_response"),
    "identity": (answer(GOOD, "Content-Encoding: identity, , identity"), "success"),
    "encoding-that-is-none": (answer(GOOD, "Content-Encoding: utf-8"), "success"),
    "encoding-folded": (answer(squeezed(squeezed(GOOD)), "Content-Encoding:\r\n\tgzip,\r\n gzip"), "success"),
    "compress": (answer(b"\x1f\x9d" + GOOD, "Content-Encoding: compress"), "unsupported_encoding"),
    "transfer-gzip-chunked": (
        answer(b"%x\r\n%s\r\n0\r\n\r\n" % (len(Z := squeezed(GOOD)), Z), "Transfer-Encoding: gzip, Chunked", length=""),
        "success",
    ),
    "transfer-identity": (answer(GOOD, "Transfer-Encoding: identity"), "success"),
    "chunked-and-empty-204": (
        answer(b"0\r\n\r\n", "Transfer-Encoding: chunked", length="", status="HTTP/1.1 204 No Content"),
        "too_small",
    ),
    "multipart": (answer(b"--x\r\nContent-Type: image/jpeg\r\n\r\n" + GOOD + b"\r\n--x--"), "not_an_image"),
    "html-as-jpeg": (answer(b"<html><h1>Sign in</h1></html>" * 9, "Content-Type: image/jpeg"), "not_an_image"),
    "created-201": (answer(status="HTTP/1.1 201 Created"), "success"),
    "no-content-204": (answer(b"", status="HTTP/1.1 204 No Content"), "too_small"),
    "partial-206": (answer(GOOD[:HALF], status="HTTP/1.1 206 Partial Content"), "truncated"),
    "multiple-300": (answer(b"", status="HTTP/1.1 300 Multiple Choices"), "http_300"),
    "not-modified-304": (answer(b"", status="HTTP/1.1 304 Not Modified"), "http_304"),
    "teapot-418": (answer(b"", status="HTTP/1.1 418 Teapot"), "http_418"),
    "legal-451": (answer(b"", status="HTTP/1.1 451 Unavailable For Legal Reasons"), "http_451"),
    "no-such-code-799": (answer(b"", status="HTTP/1.1 799 ?"), "http_799"),
    "unauthorized-401": (answer(b"", "WWW-Authenticate: Basic realm=x", status="HTTP/1.1 401 No"), "http_401"),
    "proxy-407": (answer(b"", "Proxy-Authenticate: Basic", status="HTTP/1.1 407 No"), "http_407"),
    "early-hints-then-picture": (b"HTTP/1.1 100 Continue\r\n\r\n" + answer(), "success"),
    "early-hints-103": (
        b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\nContent-Length: 9\r\n\r\n" + answer(),
        "success",
    ),
    "interim-responses-of-all-kinds": (
        b"".join(b"HTTP/1.1 %d ?\r\nX-Robots-Tag: noai\r\n\r\n" % code for code in (100, 102, 103, 104, 199, 103))
        + answer(),
        "success",
    ),
    "interim-then-nothing": (b"HTTP/1.1 103 Early Hints\r\n\r\n", "connection_reset"),
    "switching-101": (answer(b"", "Upgrade: websocket", status="HTTP/1.1 101 Switching"), "bad_response"),
    "code-99": (answer(status="HTTP/1.1 99 ?"), "bad_response"),
    "code-1000": (answer(status="HTTP/1.1 1000 ?"), "bad_response"),
    "code-not-a-number": (answer(status="HTTP/1.1 OK"), "bad_response"),
    "http-0.9": (GOOD, "bad_response"),
    "http-9.9": (answer(status="HTTP/9.9 200 OK"), "bad_response"),
    "icy": (answer(status="ICY 200 OK"), "bad_response"),
    "ssh": (b"SSH-2.0-OpenSSH_9.6\r\n", "bad_response"),
    "tls-alert": (b"\x15\x03\x01\x00\x02\x02\x28" * 3, "bad_response"),
    "line-feeds-only": (answer().replace(b"\r\n", b"\n", 4), "success"),
    "line-feeds-only-and-chunked": (chunked(GOOD).replace(b"\r\n", b"\n", 4), "success"),
    "says-nothing": (b"", "connection_reset"),
    "half-a-status-line": (b"HTTP/1.", "bad_response"),
    "headers-cut-off": (b"HTTP/1.1 200 OK\r\nContent-Le", "incomplete_transfer"),
    "headers-cut-off-at-a-line": (b"HTTP/1.1 200 OK\r\nServer: x\r\n", "incomplete_transfer"),
    "header-endless": (b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 70_000 + b"\r\n\r\n", "bad_response"),
    "headers-five-hundred": (answer(GOOD, *(f"X-{n}: y" for n in range(500))), "success"),
    "headers-five-hundred-then-an-opt-out": (
        answer(GOOD, *(f"X-{n}: y" for n in range(500)), "X-Robots-Tag: noai"),
        "opt_out",
    ),
    "header-without-colon": (answer(GOOD, "this is no header"), "success"),
    "header-without-colon-then-an-opt-out": (answer(GOOD, "this is no header", "X-Robots-Tag: noai"), "opt_out"),
    "header-folded": (answer(GOOD, "X-Robots-Tag: nofollow,\r\n\t noai"), "opt_out"),
    "header-folded-first": (answer(status="HTTP/1.1 200 OK\r\n folded: into nothing"), "success"),
    "lengths-equal": (answer(GOOD, f"Content-Length: {len(GOOD)}"), "success"),
    "lengths-different": (answer(GOOD, "Content-Length: 5"), "success"),
    "header-with-nul": (answer(GOOD, "X-Nul: a\0b"), "success"),
    "header-not-utf8": (answer(GOOD, "X-\xff: \xfe\xfd"), "success"),
    "robots-tag-noai": (answer(GOOD, "X-Robots-Tag: noai"), "opt_out"),
    "robots-tag-in-odd-case": (answer(GOOD, "x-ROBOTS-tag:NoImageAI , nofollow"), "opt_out"),
    "robots-tag-twice": (answer(GOOD, "X-Robots-Tag: all", "X-Robots-Tag: noindex"), "opt_out"),
    "robots-tag-nonsense": (answer(GOOD, "X-Robots-Tag: ::,,\xff noaixyz"), "success"),
    "retry-after-nonsense": (answer(b"", "Retry-After: soon\xff", status="HTTP/1.1 503 Busy"), "http_503"),
    "retry-after-negative": (answer(b"", "Retry-After: -5", status="HTTP/1.1 429 Busy"), "http_429"),
    "retry-after-a-year": (answer(b"", "Retry-After: 31536000", status="HTTP/1.1 429 Busy"), "rate_limited"),
    "retry-after-a-date": (
        answer(b"", "Retry-After: Fri, 31 Dec 9999 23:59:59 GMT", status="HTTP/1.1 503 Busy"),
        "rate_limited",
    ),
    "retry-after-a-past-date": (
        answer(b"", "Retry-After: Sun, 06 Nov 1994 08:49:37 GMT", status="HTTP/1.1 503 Busy"),
        "http_503",
    ),
    "retry-after-a-bad-date": (
        answer(b"", "Retry-After: Mon, 99 Foo 99999 25:61:61 GMT", status="HTTP/1.1 429 Busy"),
        "http_429",
    ),
    "retry-after-enormous": (answer(b"", f"Retry-After: {'9' * 5000}", status="HTTP/1.1 429 Busy"), "rate_limited"),
    "two-answers": (answer() + answer(b"<html>" * 30), "success"),
    "keep-alive-with-unrequested-response": (
        answer(b"", status="HTTP/1.1 404 ?").replace(b"Connection: close\r\n", b"") + answer(),
        "http_404",
    ),
    "cookie-bomb": (answer(GOOD, *(f"Set-Cookie: c{n}={'x' * 4000}" for n in range(90))), "success"),
}


def test_each_broken_answer_ends_with_its_status(raw_web: Any, ended: Callable[..., Any]) -> None:
    for name, (response, _) in CASES.items():
        raw_web.respond(f"/{name}", response)
    urls = {f"http://{name}.test/{name}": name for name in CASES}
    hosts = {f"{name}.test": raw_web.address for name in CASES}

    rows = ended(list(urls), hosts, max_bytes=2_000_000, max_wait=0.01, retries=1)

    found = {urls[url]: row["status"] for url, row in rows.items()}
    assert found == {name: status for name, (_, status) in CASES.items()}


def test_an_answer_that_never_ends_is_given_up_in_time(
    raw_web: Any, ended: Callable[..., Any], reset: Callable[..., None]
) -> None:
    def forever(piece: bytes, pause: float, head: bytes = b"") -> Callable[[socket.socket], None]:
        def behave(connection: socket.socket) -> None:
            connection.sendall(head)
            until = time.monotonic() + 8
            while time.monotonic() < until:
                connection.sendall(piece)
                time.sleep(pause)

        return behave

    head = b"HTTP/1.1 200 OK\r\n\r\n"
    behaviours: dict[str, tuple[Callable[[socket.socket], None], str]] = {
        "silent": (lambda connection: time.sleep(3), "timeout"),
        "body-drips": (forever(b"x", 0.1, head), "timeout"),
        "body-stalls": (forever(b"", 1, head + GOOD[:500]), "timeout"),
        "status-drips": (forever(b"H", 0.1), "timeout"),
        "headers-drip": (forever(b"X-A: b\r\n", 0.1, b"HTTP/1.1 200 OK\r\n"), "timeout"),
        "continues": (forever(b"HTTP/1.1 100 Continue\r\n\r\n", 0.1), "timeout"),
        "continues-fast": (forever(b"HTTP/1.1 100 Continue\r\n\r\n" * 500, 0), "timeout"),
        "chunk-sizes-drip": (forever(b"0", 0.1, head[:-2] + b"Transfer-Encoding: chunked\r\n\r\n"), "timeout"),
        "one-byte-chunks": (forever(b"1\r\nx\r\n", 0.1, head[:-2] + b"Transfer-Encoding: chunked\r\n\r\n"), "timeout"),
        "body-floods": (forever(bytes(65_536), 0, head), "too_large"),
        "chunks-flood": (
            forever(b"10000\r\n" + bytes(65_536) + b"\r\n", 0, head[:-2] + b"Transfer-Encoding: chunked\r\n\r\n"),
            "too_large",
        ),
        "status-line-floods": (forever(b"H" * 65_536, 0), "bad_response"),
        "headers-flood": (forever(b"X-A: b\r\n" * 99, 0, b"HTTP/1.1 200 OK\r\n"), "bad_response"),
        "resets-at-once": (reset, "connection_reset"),
        "resets-in-the-body": (
            lambda connection: (
                connection.sendall(answer(GOOD[:300], length=len(GOOD))),
                time.sleep(0.2),
                reset(connection),
            )[-1],
            "connection_reset",
        ),
    }
    for name, (behaviour, _) in behaviours.items():
        raw_web.routes[f"/{name}"] = behaviour
    urls = {f"http://{name}.test/{name}": name for name in behaviours}
    hosts = {f"{name}.test": raw_web.address for name in behaviours}

    started = time.monotonic()
    rows = ended(list(urls), hosts, max_bytes=1_000_000, timeout=0.6, total_timeout=1.0, retries=0, threads=16)

    assert {urls[url]: row["status"] for url, row in rows.items()} == {
        name: status for name, (_, status) in behaviours.items()
    }
    assert time.monotonic() - started < 20
