"""Addresses that are not of the open internet are reached only where a source may, by name or by network."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from stages.download.address import AllowedHosts, Dialer
from stages.download.config import DownloadConfig
from stages.download.outcome import Failure
from stages.ingest.config import SourceConfig


@pytest.mark.parametrize(
    "host",
    [
        "0",
        "0.0.0.0",
        "127.1",
        "0177.0.0.1",
        "0x7f000001",
        "2130706433",
        "localhost",
        "::1",
        "::",
        "::ffff:127.0.0.1",
        "::ffff:7f00:1",
        "::127.0.0.1",
        "64:ff9b::127.0.0.1",
        "2002:7f00:1::",
        "fe80::1",
        "fec0::1",
        "fd00::1",
        "169.254.169.254",
        "100.100.100.200",
        "10.0.0.1",
        "255.255.255.255",
        "224.0.0.1",
    ],
)
def test_no_notation_of_a_private_address_is_connected_to(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(*_: Any) -> None:
        raise AssertionError("connected")

    monkeypatch.setattr(socket, "create_connection", connect)
    with pytest.raises(Failure) as failure:
        Dialer({}).connect((host, 80), 1.0)
    assert failure.value.status == "forbidden_address"


def test_a_name_that_resolves_differently_the_second_time_gains_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([["93.184.216.34", "10.0.0.1"], ["127.0.0.1"]])
    connected = []

    def resolve(host: str, port: int, **_: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in next(answers)]

    def connect(place: tuple[str, int], timeout: float) -> socket.socket:
        connected.append(place)
        return socket.socket()

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(socket, "create_connection", connect)
    dialer = Dialer({})
    for _ in range(3):
        dialer.connect(("rebinding.test", 80), 1.0).close()
    assert connected == [("93.184.216.34", 80)] * 3


def test_a_name_that_does_not_exist_is_resolved_once(monkeypatch: pytest.MonkeyPatch) -> None:
    resolved = []

    def resolve(host: str, port: int, **_: Any) -> list[Any]:
        resolved.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    dialer = Dialer({})
    for _ in range(3):
        with pytest.raises(Failure) as failure:
            dialer.connect(("no.test", 80), 1.0)
        assert failure.value.status == "dns"
    assert resolved == ["no.test"]
    assert dialer.dead_status("no.test") == "dns"


def test_hosts_and_networks_are_allowed_by_name_and_by_address() -> None:
    allowed = AllowedHosts(("Intra.test", "10.1.0.0/16", "fd00::/8"))
    assert allowed("intra.test", "192.168.0.1")
    assert allowed("any.test", "10.1.2.3")
    assert allowed("any.test", "fd12::1")
    assert not allowed("any.test", "10.2.0.1")
    assert not allowed("sub.intra.test", "192.168.0.1")


def test_a_private_server_is_reached_only_where_the_source_may(
    web: Any, make_picture: Callable[..., bytes], pairs_of: Callable[..., Any], download: Callable[..., Any]
) -> None:
    web.serve("/a.jpg", make_picture(1))
    pairs = pairs_of([f"http://{web.address}/a.jpg"])
    assert download(pairs).counts["status.forbidden_address"] == 1
    assert download(pairs, allow_private_hosts=("127.0.0.0/8",)).counts["success"] == 1
    assert download(pairs, allow_private_hosts={"src": ("127.0.0.1",)}).counts["success"] == 1
    assert download(pairs, allow_private_hosts={"other": ("127.0.0.1",)}).counts["status.forbidden_address"] == 1


def test_what_another_source_may_reach_does_not_change_a_source() -> None:
    source = SourceConfig(kind="x", paths=("l",))
    one = DownloadConfig(name="s", source=source, allow_private_hosts={"t": ("10.0.0.0/8",)})
    assert one == DownloadConfig(name="s", source=source)


def test_what_is_no_network_is_refused_at_once() -> None:
    for hosts in (("10.0.0.1/8",), {"s": ("10.0.0.0/99",)}):
        with pytest.raises(ValidationError, match="neither a host name nor a network"):
            DownloadConfig(name="s", source=SourceConfig(kind="x", paths=("l",)), allow_private_hosts=hosts)


def test_requests_keep_to_the_rate_and_say_who_asks(
    web: Any, make_picture: Callable[..., bytes], pairs_of: Callable[..., Any], download: Callable[..., Any]
) -> None:
    import time

    for n in range(10):
        web.serve(f"/{n}.jpg", make_picture(1))
    pairs = pairs_of([f"http://{web.address}/{n}.jpg" for n in range(10)])
    reached = {"allow_private_hosts": ("127.0.0.1",), "contact": "https://lab.test/crawler"}
    start = time.monotonic()
    artifact = download(pairs, per_host_rate=40.0, **reached)
    assert artifact.counts["success"] == 10
    assert time.monotonic() - start > 11 / 40  # twelve requests, with those for the two files of rules
    assert web.agents == {"Mozilla/5.0 (compatible; pairmill; +https://lab.test/crawler)"}


def test_urls_that_need_no_request_do_not_wait_for_the_rate(
    web: Any, make_picture: Callable[..., bytes], pairs_of: Callable[..., Any], download: Callable[..., Any]
) -> None:
    import time

    web.serve("/robots.txt", b"User-agent: *\nDisallow: /no")
    pairs = pairs_of([f"http://{web.address}/no/{n}.jpg" for n in range(100)])
    start = time.monotonic()
    artifact = download(pairs, per_host_rate=5.0, allow_private_hosts=("127.0.0.1",), min_success_rate=0)
    assert artifact.counts["status.robots"] == 100
    assert time.monotonic() - start < 5
