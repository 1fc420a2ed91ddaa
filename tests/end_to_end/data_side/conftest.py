"""Loopback hosts that serve real photographs and radiographs, one of which does all wrong that a host can."""

from __future__ import annotations

import gzip
import io
import json
import random
import socket
import struct
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

GOOD_HOSTS = ("127.0.0.2", "127.0.0.3", "127.0.0.4")
BAD, NO_ROBOTS, DEAD, BUSY = "127.0.0.66", "127.0.0.67", "127.0.0.68", "127.0.0.69"


@dataclass
class Route:
    """How a path is answered."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    raw: bytes | None = None
    """Said instead of an answer, before the connection ends."""
    wait: float = 0.0
    """Seconds before the first byte."""
    drip: float = 0.0
    """Seconds between single bytes of the body."""
    busy_turns: int = 0
    """So many first requests are answered with 429 and Retry-After."""
    reset: bool = False
    """Break the connection in the middle of the body."""


class Hosts:
    """Plays all hosts on one port; a path is routed by host and path, and counted."""

    def __init__(self) -> None:
        self.routes: dict[tuple[str, str], Route] = {}
        self.asked: Counter[tuple[str, str]] = Counter()
        self.listeners: list[socket.socket] = []
        self.port = 0
        for host in (*GOOD_HOSTS, BAD, NO_ROBOTS, BUSY):
            listener = socket.create_server((host, self.port), backlog=256)
            self.port = listener.getsockname()[1]
            self.listeners.append(listener)
            threading.Thread(target=self._accept, args=(listener, host), daemon=True).start()

    def add(self, host: str, path: str, route: Route) -> str:
        """Route a path; returns its URL."""
        self.routes[host, path] = route
        return self.url(host, path)

    def serve(self, host: str, path: str, body: bytes) -> str:
        """Serve a body without any fault; returns its URL."""
        return self.add(host, path, Route(body=body))

    def url(self, host: str, path: str) -> str:
        return f"http://{host}:{self.port}{path}"

    def _accept(self, listener: socket.socket, host: str) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection, host), daemon=True).start()

    def _serve(self, connection: socket.socket, host: str) -> None:
        held = b""
        with connection:
            try:
                while True:
                    while b"\r\n\r\n" not in held:
                        piece = connection.recv(65_536)
                        if not piece:
                            return
                        held += piece
                    request, _, held = held.partition(b"\r\n\r\n")
                    path = request.split(b" ")[1].decode("latin-1")
                    self.asked[host, path] += 1
                    if not self._answer(connection, self.routes.get((host, path), Route(404)), self.asked[host, path]):
                        return
            except OSError:
                return

    def _answer(self, connection: socket.socket, route: Route, turn: int) -> bool:
        """Whether the connection stays open."""
        time.sleep(route.wait)
        if route.raw is not None:
            connection.sendall(route.raw)
            return False
        status, headers, body = route.status, dict(route.headers), route.body
        if turn <= route.busy_turns:
            status, headers, body = 429, {"Retry-After": "1"}, b""
        headers.setdefault("Content-Length", str(len(body)))
        lines = [f"HTTP/1.1 {status} Said", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        connection.sendall("\r\n".join(lines).encode("latin-1"))
        if route.reset:
            connection.sendall(body[: len(body) // 2])
            time.sleep(0.1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return False
        if route.drip:
            for at in range(len(body)):
                connection.sendall(body[at : at + 1])
                time.sleep(route.drip)
            return False
        connection.sendall(body)
        return len(body) == int(headers["Content-Length"])

    def close(self) -> None:
        for listener in self.listeners:
            listener.close()


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    if sys.platform != "linux":
        pytest.skip("needs the addresses 127.0.0.2 and on, which only Linux has by itself")
    hosts = Hosts()
    yield hosts
    hosts.close()


@dataclass(frozen=True)
class Planted:
    """A listed pair and what must become of it."""

    url: str
    caption: str
    status: str
    """Of the download: `success` or the reason of failure."""
    reason: str = ""
    """Of the selection; for a failed download `download.<status>`."""
    sha256: str = ""
    """Stated in the list, where not empty."""


def _picture(data: bytes, form: str = "JPEG", size: tuple[int, int] | None = None, **options: Any) -> bytes:
    from PIL import Image

    image = Image.open(io.BytesIO(data)).convert("RGB")
    out = io.BytesIO()
    (image.resize(size, Image.Resampling.LANCZOS) if size else image).save(out, form, **options)
    return out.getvalue()


def _bomb(side: int = 40_000) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(9999))) + chunk(b"IEND", b"")


def _captions() -> Iterator[str]:
    """English sentences, each once."""
    who = ("a sailing boat", "an old wooden bridge", "a crowded market", "a red bicycle", "two brown dogs")
    what = ("seen from the shore", "in the morning light", "beside a quiet river", "on a wet street", "behind a fence")
    when = ("in winter", "in early spring", "on a summer day", "late in the autumn")
    sentences = [f"{a} {b} {c}" for a in who for b in what for c in when]
    random.Random(1).shuffle(sentences)
    yield from sentences


def transport(hosts: Hosts, fault: Callable[..., None], spare: Iterator[bytes]) -> None:
    """What servers do to a response on its way: some of it costs the image, most of it must not."""

    def head(*lines: str, status: str = "200 OK", end: str = "\r\n") -> bytes:
        return end.join([f"HTTP/1.1 {status}", *lines, "", ""]).encode("latin-1")

    def sized(body: bytes, *lines: str, end: str = "\r\n") -> bytes:
        return head(f"Content-Length: {len(body)}", *lines, end=end) + body

    def chunked(body: bytes, *lines: str) -> bytes:
        chunks = b"%x;a=b\r\n%s\r\n0\r\nX-Robots-Tag: noai\r\n\r\n" % (len(body), body)
        return head("Transfer-Encoding: chunked", *lines) + chunks

    def raw_deflate(body: bytes) -> bytes:
        return zlib.compress(body, wbits=-15)

    gzip_once = gzip.compress
    many = [f"X-Header-{number}: {number}" for number in range(300)]
    hints = head("Link: </a.css>; rel=preload", status="103 Early Hints") + head(status="102 Processing")
    for raw in (
        sized(raw_deflate(next(spare)), "Content-Encoding: deflate"),
        sized(zlib.compress(next(spare)), "Content-Encoding: deflate"),
        sized(gzip_once(gzip_once(next(spare))), "Content-Encoding: gzip, gzip"),
        sized(gzip_once(next(spare)), "Content-Encoding: x-gzip"),
        sized(next(spare), "Content-Encoding: identity"),
        hints + sized(next(spare)),
        sized(next(spare), *many),
        sized(next(spare), "X-Latin: caf\xe9", "no header at all"),
        sized(next(spare), "X-Folded: one,\r\n\t two"),
        sized(next(spare), end="\n"),
        chunked(next(spare)),
        chunked(gzip_once(next(spare)), "Content-Encoding: gzip"),
    ):
        fault("success", Route(raw=raw))
    body = next(spare)
    fault("opt_out", Route(raw=sized(body, *many, "X-Robots-Tag: noai")))
    fault("opt_out", Route(raw=sized(body, "no header at all", "X-Robots-Tag:\r\n noai")))
    fault("unsupported_encoding", Route(raw=sized(body, "Content-Encoding: compress")))
    fault("bad_response", Route(raw=sized(b"\xff" * 500, "Content-Encoding: deflate")))
    fault("bad_response", Route(raw=body))  # HTTP/0.9
    fault("connection_reset", Route(raw=b""))
    fault("connection_reset", Route(raw=hints))
    fault("incomplete_transfer", Route(raw=sized(body)[:120]))
    fault("incomplete_transfer", Route(raw=chunked(body)[:-40]))
    fault("truncated", Route(raw=head(f"Content-Length: {len(body) // 2}") + body))
    for number in range(3):
        fault("rate_limited", url=hosts.add(BUSY, f"/busy/{number}.jpg", Route(429, {"Retry-After": "86400"})))

    targets = ("/moved/{}/é ü.jpg#part", "//{host}/moved/{}/é ü.jpg", "../moved/x/%2e%2E/{}/é ü.jpg")
    for number, target in enumerate(targets):
        location = target.format(number, host=f"{BAD}:{hosts.port}").encode().decode("latin-1")
        fault("success", Route(302, {"Location": location}), path=f"/moves/{number}")
        hosts.add(BAD, f"/moved/{number}/%C3%A9%20%C3%BC.jpg", Route(body=next(spare)))
    for path in ("/x/../private/2.jpg", "/x/%2e%2E/private/3.jpg", "/%70rivate/./4.jpg"):
        hosts.add(BAD, path, Route(body=body))
        fault("robots", url=hosts.url(BAD, path))
    fault("robots", Route(302, {"Location": "../x/%2e%2e/private/1.jpg"}), path="/moves/private")


@pytest.fixture
def plant() -> Callable[..., list[Planted]]:
    """`plant(hosts, spare)`: every kind of fault once, on the host of faults; `spare` gives unused photographs."""

    def make(hosts: Hosts, spare: Iterator[bytes], shown: tuple[str, bytes]) -> list[Planted]:
        """`shown`: URL and bytes of a photograph that another row lists, whose copies are planted."""
        import hashlib

        from PIL import Image

        captions = _captions()
        planted: list[Planted] = []

        def fault(status: str, route: Route | None = None, path: str = "", reason: str = "", url: str = "") -> None:
            path = path or f"/fault/{len(planted)}.jpg"
            where = url or hosts.add(BAD, path, route or Route())
            reason = reason if status == "success" else f"download.{status}"
            planted.append(Planted(where, next(captions), status, reason))

        hosts.add(BAD, "/robots.txt", Route(body=b"User-agent: *\nDisallow: /private/\n"))
        reserved = [{"location": "/reserved/*", "tdm-reservation": 1}]
        hosts.add(BAD, "/.well-known/tdmrep.json", Route(body=json.dumps(reserved).encode()))
        hosts.add(NO_ROBOTS, "/robots.txt", Route(500))
        for code in (400, 401, 403, 404, 410, 451, 500, 502):
            fault(f"http_{code}", Route(code))
        fault("http_429", Route(429, {"Retry-After": "1"}))
        fault("success", Route(body=next(spare), busy_turns=1))
        fault("timeout", Route(wait=30))
        fault("timeout", Route(body=next(spare), drip=0.2))
        for number in range(2):
            fault("connection_refused", url=hosts.url(DEAD, f"/{number}.jpg"))
            fault("dns", url=f"http://no-such-host-{number}.invalid/x.jpg")
        whole = next(spare)
        fault("truncated", Route(body=whole[: len(whole) // 2]))
        fault("incomplete_transfer", Route(body=whole[: len(whole) // 2], headers={"Content-Length": str(len(whole))}))
        fault("connection_reset", Route(body=whole, reset=True))
        fault("bad_response", Route(raw=b"SSH-2.0-OpenSSH_9.6\r\n"))
        fault(
            "not_an_image",
            Route(body=b"<html><title>Not found</title></html>" * 9, headers={"Content-Type": "image/jpeg"}),
        )
        fault("opt_out", Route(body=next(spare), headers={"X-Robots-Tag": "noai"}))
        fault("opt_out", Route(body=next(spare), headers={"X-Robots-Tag": "pairmill: noindex, noimageai"}))
        fault("opt_out", Route(body=next(spare), headers={"tdm-reservation": "1"}))
        fault("opt_out", Route(body=next(spare)), path="/reserved/1.jpg")
        fault("robots", Route(body=next(spare)), path="/private/1.jpg")
        fault("robots_unavailable", url=hosts.add(NO_ROBOTS, "/1.jpg", Route(body=next(spare))))
        hosts.add(BAD, "/loop/b", Route(302, {"Location": "/loop/a"}))
        fault("redirect_loop", Route(302, {"Location": "/loop/b"}), path="/loop/a")
        for number in range(14):
            hosts.add(BAD, f"/hop/{number}", Route(301, {"Location": f"/hop/{number + 1}"}))
        fault("too_many_redirects", Route(301, {"Location": "/hop/0"}))
        fault("forbidden_address", Route(302, {"Location": "http://10.0.0.1/x.jpg"}))
        fault("forbidden_address", Route(302, {"Location": "http://169.254.169.254/latest/meta-data/"}))
        fault("forbidden_address", url="http://192.168.0.1/x.jpg")
        fault("forbidden_scheme", Route(302, {"Location": "file:///etc/passwd"}))
        fault("success", Route(308, {"Location": hosts.add(GOOD_HOSTS[0], "/moved.jpg", Route(body=next(spare)))}))
        transport(hosts, fault, spare)
        fault("too_large", Route(body=next(spare) + bytes(3_000_000)))
        fault("too_many_pixels", Route(body=_bomb()))
        fault("too_small", Route(body=b"\xff\xd8\xff\xe0"))
        fault("unsupported_format", Route(body=_picture(next(spare), "GIF")))
        png = _picture(next(spare), "PNG", (300, 300))
        fault("corrupt", Route(body=png[:5000] + bytes(2000) + png[7000:]))
        turned = Image.Exif()
        turned[0x0112] = 6
        fault("success", Route(body=_picture(next(spare), size=(480, 320), exif=turned)), path="/turned.jpg")
        fault("success", Route(body=_picture(next(spare), size=(150, 120))), reason="rule.min_side")
        fault("success", Route(body=_picture(next(spare), size=(900, 210))), reason="rule.max_aspect_ratio")
        fault("success", Route(body=shown[1]), reason="duplicate.exact")
        with Image.open(io.BytesIO(shown[1])) as image:
            smaller = (image.width * 3 // 4, image.height * 3 // 4)
        fault("success", Route(body=_picture(shown[1], size=smaller, quality=85)), reason="duplicate.near")
        # A list that knows what its pictures were: one is still the same, one is another by now.
        for same in (True, False):
            body = next(spare)
            digest = hashlib.sha256(body if same else b"another").hexdigest()
            url = hosts.add(BAD, f"/hashed/{same}.jpg", Route(body=body))
            status, reason = ("success", "") if same else ("hash_mismatch", "download.hash_mismatch")
            planted.append(Planted(url, next(captions), status, reason, digest))
        good = hosts.add(BAD, "/words.jpg", Route(body=next(spare)))
        for caption, rule in {
            "sailing boats": "min_words",
            "Ein Segelboot liegt still auf einem ruhigen See": "language",
        }.items():
            planted.append(Planted(good, caption, "success", f"rule.{rule}"))
        return planted

    return make
