"""URLs and redirects that point where they must not, and hosts whose names resolve to one thing and then another."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import pytest

#: Nothing of these may be connected to; `{port}` is where a server listens on loopback.
LISTED: dict[str, str] = {
    "http://127.0.0.1:{port}/good": "forbidden_address",
    "http://127.1:{port}/good": "forbidden_address",
    "http://127.255.255.254:{port}/good": "forbidden_address",
    "http://2130706433:{port}/good": "forbidden_address",
    "http://0x7f000001:{port}/good": "forbidden_address",
    "http://0177.0.0.1:{port}/good": "forbidden_address",
    "http://0:{port}/good": "forbidden_address",
    "http://0.0.0.0:{port}/good": "forbidden_address",
    "http://localhost:{port}/good": "forbidden_address",
    "http://LOCALHOST:{port}/good": "forbidden_address",
    "http://①②⑦.⓪.⓪.①:{port}/good": "forbidden_address",
    "http://[::1]:{port}/good": "forbidden_address",
    "http://[::]:{port}/good": "forbidden_address",
    "http://[::ffff:127.0.0.1]:{port}/good": "forbidden_address",
    "http://[::ffff:7f00:1]:{port}/good": "forbidden_address",
    "http://[64:ff9b::7f00:1]/good": "forbidden_address",
    "http://[2002:7f00:1::]/good": "forbidden_address",
    "http://[fe80::1]/x": "forbidden_address",
    "http://[fc00::1]/x": "forbidden_address",
    "http://[ff02::1]/x": "forbidden_address",
    "http://10.0.0.1/x": "forbidden_address",
    "http://172.16.0.1/x": "forbidden_address",
    "http://192.168.1.1/x": "forbidden_address",
    "http://169.254.169.254/latest/meta-data/": "forbidden_address",
    "http://100.64.0.1/x": "forbidden_address",
    "http://192.0.2.1/x": "forbidden_address",
    "http://224.0.0.1/x": "forbidden_address",
    "http://255.255.255.255/x": "forbidden_address",
    "http://web.test@127.0.0.1:{port}/good": "forbidden_address",
    "http://web.test:80@127.0.0.1:{port}/good": "forbidden_address",
    "http://web.test:99999/good": "invalid_url",
    "http://web.test:-1/good": "invalid_url",
    "http://web.test:port/good": "invalid_url",
    "http:///good": "invalid_url",
    "http://": "invalid_url",
    "http://[::1/good": "invalid_url",
    "http://[not-an-address]/good": "invalid_url",
    "http://.../good": "invalid_url",
    "http://" + "a" * 300 + ".test/good": "invalid_url",
    "http://web .test/good": "invalid_url",
    "http://web\x00.test/good": "invalid_url",
    "file:///etc/passwd": "forbidden_scheme",
    "ftp://web.test/good": "forbidden_scheme",
    "data:image/gif;base64,R0lGODlhAQABAAAAACw=": "forbidden_scheme",
    "javascript:alert(1)": "forbidden_scheme",
    "gopher://127.0.0.1:{port}/_GET%20/good": "forbidden_scheme",
    "//web.test/good": "forbidden_scheme",
    "web.test/good": "forbidden_scheme",
    "s3://bucket/good": "forbidden_scheme",
    # These are fetched, and from where they say.
    "http://web.test/good": "success",
    "HTTP://WEB.TEST/good": "success",
    "http://user:password@web.test/good": "success",
    "http://web.test/good#fragment": "success",
    "  http://web.test/good?padded  ": "success",
    "http://web.test/a b/é?q=ü": "success",
    "http://web.test./good": "success",
    "http://web.test\\@evil.test/good": "dns",
    "http://web.test/./a b/../a%20b/%2e%2E/a b/é?q=ü": "success",
    "http://web.test/%67oo%64": "success",
    "http://web.test:80/good": "success",
    "http://w%65b.test/good": "success",
    "http://web.test%2Fgood": "invalid_url",
    "http://web.test%40evil.test/good": "invalid_url",
    "http://127%2e0.0.1:{port}/good": "forbidden_address",
    "http://web.test/x\r\nHost: evil.test\r\n\r\nGET /good": "http_404",
    "http://web.test/good HTTP/1.1\r\nX-Injected: 1": "http_404",
}

REDIRECTS: dict[str, str] = {
    "/good": "success",
    "good": "success",
    "?again": "success",
    "//web.test/good": "success",
    "http://other.test/good": "success",
    "//other.test/x/%2e%2e/good": "success",
    "../%2e%2e/./good#fragment": "success",
    "/a b/\xc3\xa9?q=\xc3\xbc#fragment": "success",  # UTF-8, as most servers send it
    "/a b/\r\n": "http_404",
    "http://127%2e0.0.1:{port}/good": "forbidden_address",
    " http://web.test/good ": "success",
    "http://web.test/a b/\xe9?q=\xfc": "http_404",  # Latin-1, which no one listed
    "http://127.0.0.1:{port}/good": "forbidden_address",
    "http://127.1:{port}/good": "forbidden_address",
    "http://0x7f.1:{port}/good": "forbidden_address",
    "http://localhost:{port}/good": "forbidden_address",
    "//localhost:{port}/good": "forbidden_address",
    "http://[::1]:{port}/good": "forbidden_address",
    "http://[::ffff:127.0.0.1]:{port}/good": "forbidden_address",
    "http://169.254.169.254/latest/meta-data/": "forbidden_address",
    "http://web.test@127.0.0.1:{port}/good": "forbidden_address",
    "https://10.0.0.1/x": "forbidden_address",
    "file:///etc/passwd": "forbidden_scheme",
    "FILE:///etc/passwd": "forbidden_scheme",
    "ftp://web.test/good": "forbidden_scheme",
    "data:image/png;base64,iVBORw0KGgo=": "forbidden_scheme",
    "javascript:alert(1)": "forbidden_scheme",
    "jar:http://web.test!/good": "forbidden_scheme",
    "http://web.test:99999/good": "invalid_url",
    "http://[::1/good": "invalid_url",
    "http:///good": "success",  # no host of its own: the one that said so
    "": "http_302",
}


@pytest.fixture
def server(raw_web: Any, make_picture: Callable[..., bytes]) -> Any:
    """Has one picture under several paths."""
    for path in ("/good", "/good?padded", "/good?again", "/a%20b/%C3%A9?q=%C3%BC"):
        raw_web.serves(path, make_picture(1))
    return raw_web


def test_no_listed_url_leads_to_an_address_that_is_not_public(server: Any, ended: Callable[..., Any]) -> None:
    urls = {url.format(port=server.port) if "{port}" in url else url: status for url, status in LISTED.items()}

    rows = ended(list(urls), {"web.test": server.address, "web.test.": server.address}, retries=0)

    assert {url: row["status"] for url, row in rows.items()} == urls
    hosts = {line for request in server.requests for line in request.split(b"\r\n") if line.startswith(b"Host:")}
    assert hosts <= {b"Host: web.test", b"Host: web.test."}
    headers = b"".join(request.split(b"\r\n", 1)[1] for request in server.requests)
    assert not any(word in headers for word in (b"X-Injected", b"evil", b"password", b"Authorization"))


def test_no_redirect_leads_to_an_address_that_is_not_public(server: Any, ended: Callable[..., Any]) -> None:
    expected = {}
    for number, (target, status) in enumerate(REDIRECTS.items()):
        location = target.format(port=server.port)
        server.respond(
            f"/hop/{number}",
            f"HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode("latin-1"),
        )
        if "good" not in target and "/a b" not in target and status == "success":  # relative to the hop's own folder
            server.serves(f"/hop/{number}{target}" if target.startswith("?") else f"/hop/{target}", b"")
        expected[f"http://web.test/hop/{number}"] = status
    server.routes["/hop/good"] = server.routes["/good"]
    server.routes["/hop/2?again"] = server.routes["/good"]

    rows = ended(list(expected), {"web.test": server.address, "other.test": server.address}, retries=0)

    shown = dict(zip(expected, REDIRECTS, strict=True))
    assert {shown[url]: row["status"] for url, row in rows.items()} == REDIRECTS


def test_chains_of_redirects_end(server: Any, ended: Callable[..., Any]) -> None:
    def moved(path: str, target: str, code: int = 302) -> None:
        head = f"HTTP/1.1 {code} Redirect\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n"
        server.respond(path, head.encode())

    moved("/self", "/self")
    moved("/a", "/b", 301)
    moved("/b", "/c", 307)
    moved("/c", "http://web.test/a", 308)
    for n in range(30):
        moved(f"/chain/{n}", f"/chain/{n + 1}")
    for n in range(3):
        moved(f"/short/{n}", f"/short/{n + 1}" if n < 2 else "/good", 303)
    moved("/growing", "/growing?")
    moved("/without", "", 301)
    moved("/fragment", "/fragment#again")
    statuses = {
        "self": "redirect_loop",
        "a": "redirect_loop",
        "chain/0": "too_many_redirects",
        "short/0": "success",
        "fragment": "redirect_loop",
        "without": "http_301",
    }
    rows = ended([f"http://web.test/{path}" for path in statuses], {"web.test": server.address}, retries=0)
    assert {url.removeprefix("http://web.test/"): row["status"] for url, row in rows.items()} == statuses


def test_a_name_that_resolves_to_a_public_address_first_and_a_private_one_later_gains_nothing(
    server: Any, ended: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name server is the attacker's; everything else is real."""
    resolved: list[str] = []
    dialled: list[Any] = []
    public = "93.184.215.14"

    def answers(host: str, port: int, *args: Any, **kwargs: Any) -> list[Any]:
        resolved.append(host)
        turn = resolved.count(host)
        flip = public if turn == 1 else "127.0.0.1"
        found = {
            "rebinding.evil": [flip],
            "both.evil": ["127.0.0.1", "10.0.0.1", public],
            "private.evil": ["127.0.0.1", "::1", "169.254.169.254"],
            "mapped.evil": ["::ffff:127.0.0.1"],
            "scoped.evil": ["fe80::1%eth0"],
        }[host]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

    def refuses(place: Any, *args: Any, **kwargs: Any) -> socket.socket:
        dialled.append(place)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "getaddrinfo", answers)
    monkeypatch.setattr(socket, "create_connection", refuses)
    names = ("rebinding", "both", "private", "mapped", "scoped")
    urls = [f"http://{name}.evil:{server.port}/{n}" for name in names for n in range(3)]

    rows = ended(urls, {}, retries=1)

    by_host: dict[str, set[str]] = {name: set() for name in names}
    for url, row in rows.items():
        by_host[url.split("/")[2].split(".")[0]].add(row["status"])
    refused = {"connection_refused"}
    forbidden = {"forbidden_address"}
    assert by_host == {
        "rebinding": refused,
        "both": refused,
        "private": forbidden,
        "mapped": forbidden,
        "scoped": forbidden,
    }
    assert {place[0] for place in dialled} == {public}
    assert not server.requests
