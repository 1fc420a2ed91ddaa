"""Every way the web misbehaves ends as its own reason, and every listed image in exactly one row."""

from __future__ import annotations

import hashlib
import io
import struct
import tarfile
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image


def bomb_png(side: int) -> bytes:
    """A PNG whose header promises side × side pixels and whose data hold none of them."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(bytes(2048)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body + chunk(b"IEND", b"")


@pytest.fixture
def expected(web: Any, make_picture: Callable[..., bytes]) -> dict[str, str]:
    """A list with one URL per misbehaviour, and the status each must end with."""
    good = make_picture(1)
    jpeg = make_picture(2, (200, 150))
    png = make_picture(3, form="PNG")
    webp = make_picture(4, form="WEBP")
    turned = Image.Exif()
    turned[0x0112] = 6
    web.serve("/good.jpg", good)
    web.serve("/good.png", png)
    web.serve("/good.webp", webp)
    web.serve("/turned.jpg", make_picture(5, (64, 48), exif=turned))
    web.serve("/gone", status=410)
    web.serve("/missing", status=404)
    web.serve("/broken", status=500)
    web.routes["/busy"] = lambda turn: (429, {"Retry-After": "1"}, b"") if turn == 1 else (200, {}, make_picture(6))
    web.serve("/busy-always", status=429, Retry_After="0")
    web.serve("/busy-for-a-day", status=429, Retry_After="86400")
    web.serve("/half.jpg", jpeg[: len(jpeg) // 2])
    web.serve("/half.png", png[: len(png) // 2])
    web.serve("/half.webp", webp[: len(webp) // 2])
    web.serve("/cut-off.jpg", jpeg[: len(jpeg) // 2], Content_Length=str(len(jpeg)))
    web.serve("/page", b"<!doctype html><html><body>" + b"not found " * 50, Content_Type="image/jpeg")
    web.serve("/tiny", b"\xff\xd8\xff")
    web.serve("/no-ai.jpg", good, X_Robots_Tag="nofollow, noai")
    web.serve("/no-ai-for-others.jpg", good, X_Robots_Tag="otherbot: noai")
    web.serve("/no-ai-for-us.jpg", good, X_Robots_Tag="PairMill: noimageai")
    web.serve("/loop-a", status=302, Location="/loop-b")
    web.serve("/loop-b", status=302, Location="/loop-a")
    for n in range(12):
        web.serve(f"/hop{n}", status=301, Location=f"/hop{n + 1}")
    web.serve("/moved", status=308, Location="http://b.test/good.jpg")
    web.serve("/to-private", status=302, Location="http://10.0.0.1/secret.png")
    web.serve("/to-loopback", status=302, Location=f"http://{web.address}/good.jpg")
    web.serve("/to-file", status=302, Location="file:///etc/passwd")
    web.serve("/to-ftp", status=302, Location="ftp://a.test/x.jpg")
    web.serve("/huge", bytes(300_000))
    web.serve("/bomb.png", bomb_png(30_000))
    web.serve("/picture.gif", make_picture(7, form="GIF"))
    web.serve("/with%20space/%C3%A9.jpg", make_picture(8))
    return {
        "http://a.test/good.jpg": "success",
        "http://a.test/good.png": "success",
        "http://a.test/good.webp": "success",
        "http://a.test/turned.jpg": "success",
        "http://a.test/gone": "http_410",
        "http://a.test/missing": "http_404",
        "http://a.test/broken": "http_500",
        "http://c.test/busy": "success",
        "http://c.test/busy-always": "http_429",
        "http://d.test/busy-for-a-day": "rate_limited",
        "http://a.test/half.jpg": "truncated",
        "http://a.test/half.png": "truncated",
        "http://a.test/half.webp": "truncated",
        "http://a.test/cut-off.jpg": "incomplete_transfer",
        "http://a.test/page": "not_an_image",
        "http://a.test/tiny": "too_small",
        "http://a.test/no-ai.jpg": "opt_out",
        "http://a.test/no-ai-for-us.jpg": "opt_out",
        "http://a.test/no-ai-for-others.jpg": "success",
        "http://a.test/loop-a": "redirect_loop",
        "http://a.test/hop0": "too_many_redirects",
        "http://a.test/moved": "success",
        "http://a.test/to-private": "forbidden_address",
        "http://a.test/to-loopback": "forbidden_address",
        "http://a.test/to-file": "forbidden_scheme",
        "http://a.test/to-ftp": "forbidden_scheme",
        "http://a.test/huge": "too_large",
        "http://a.test/bomb.png": "too_many_pixels",
        "http://a.test/picture.gif": "unsupported_format",
        " http://a.test/with space/é.jpg": "success",
        "http://dead.test/1.jpg": "connection_refused",
        "http://dead.test/2.jpg": "connection_refused",
        "http://127.0.0.1/x.jpg": "forbidden_address",
        "http://2130706433/x.jpg": "forbidden_address",
        "http://[::ffff:127.0.0.1]/x.jpg": "forbidden_address",
        "ftp://a.test/x.jpg": "forbidden_scheme",
        "http:///x.jpg": "invalid_url",
        "http://a.test:99999/x.jpg": "invalid_url",
    }


def test_each_misbehaviour_ends_with_its_reason_in_one_row_whatever_the_number_of_threads(
    web: Any,
    expected: dict[str, str],
    closed_port: str,
    pairs_of: Callable[..., Any],
    download: Callable[..., Any],
    attempts: Callable[..., Any],
) -> None:
    hosts = {f"{name}.test": web.address for name in "abcd"} | {"dead.test": closed_port}
    pairs = pairs_of(list(expected), captions=2)
    limits = {"max_bytes": 200_000, "max_pixels": 10_000_000}

    many = download(pairs, hosts, threads=8, **limits)
    rows = attempts(many)

    assert {url: row["status"] for url, row in rows.items()} == expected
    reasons = sorted(status for status in expected.values() if status != "success")
    counts = many.counts
    assert counts["images"] == len(expected)
    assert counts["success"] == sum(status == "success" for status in expected.values())
    assert {key: n for key, n in counts.items() if key.startswith("status.")} == {
        f"status.{reason}": reasons.count(reason) for reason in reasons
    }
    assert all(row["error"] for row in rows.values() if row["status"] != "success")
    assert not any(web.address.split(":")[1] in (row["error"] or "") for row in rows.values())

    with tarfile.open(many.path("raw-00000.tar")) as tar:
        names = tar.getnames()
    stored = [row for row in rows.values() if row["status"] == "success"]
    assert names == sorted(f"{row['image_uid']}.{row['ext']}" for row in stored)
    raw = many.path("raw-00000.tar").read_bytes()
    for row in stored:
        data = raw[row["offset"] : row["offset"] + row["length"]]
        assert hashlib.sha256(data).hexdigest() == row["sha256"]
        with Image.open(io.BytesIO(data)) as image:
            assert image.size == (row["width"], row["height"])
            assert image.getexif().get(0x0112, 1) == 1

    turned = rows["http://a.test/turned.jpg"]
    assert (turned["width"], turned["height"], turned["exif_orientation"]) == (48, 64, 6)
    assert turned["sha256"] != turned["source_sha256"]
    assert "a.test" in web.hosts
    assert (
        web.requests["/missing"] == web.requests["/no-ai.jpg"] == web.requests["/page"] == 1
    )  # permanent: never retried
    assert web.requests["/broken"] == web.requests["/cut-off.jpg"] == 3

    web.requests.clear()
    single = download(pairs, hosts, threads=1, **limits)
    assert single.manifest["files"] == many.manifest["files"]
    assert single.counts == many.counts


def test_a_server_that_does_not_answer_or_drips_without_end_is_a_timeout(
    web: Any, pairs_of: Callable[..., Any], download: Callable[..., Any], attempts: Callable[..., Any]
) -> None:
    web.slow("/slow", 0.8)
    web.drip("/drip", 0.1)
    urls = ["http://a.test/slow", "http://a.test/drip"]
    artifact = download(pairs_of(urls), {"a.test": web.address}, timeout=0.3, total_timeout=0.5, retries=1)
    assert {row["status"] for row in attempts(artifact).values()} == {"timeout"}
    assert web.requests == {"/slow": 2, "/drip": 2}
