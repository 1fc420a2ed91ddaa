"""The demonstration's server, asked over real connections."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from stages.base.artifact import Artifact
from stages.world.plugin import serving

ROOT = Path(__file__).resolve().parents[3]
LAION, SLOW, DEAD = (f"{host}.demo.pairmill.test" for host in ("laion", "slow", "dead"))


@pytest.fixture(scope="module")
def hosts(world: Path) -> Iterator[dict[str, str]]:
    """The server over the small world."""
    with serving(Artifact(str(world)), "demo") as served:
        yield served


def _get(where: str, path: str, timeout: float = 5) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection(where, timeout=timeout)
    try:
        connection.request("GET", path, headers={"Host": LAION})
        response = connection.getresponse()
        return response, response.read()
    finally:
        connection.close()


def test_images_are_served_as_they_lie_under_every_host(hosts: dict[str, str], world: Path) -> None:
    for path, file in (("/shapes/7.png", "images/train/7.png"), ("/photos/coffee.jpg", "www/photos/coffee.jpg")):
        response, body = _get(hosts[LAION], path)
        assert response.status == 200
        assert response.getheader("Content-Type") in ("image/png", "image/jpeg")
        assert body == (world / file).read_bytes()


@pytest.mark.parametrize(
    "path",
    ["/", "/shapes/../../expected.json", "/www/routes.json", "/dicom/01_1.dcm", "/images/test/0.png", "/photos/"],
)
def test_nothing_else_is_served(hosts: dict[str, str], path: str) -> None:
    assert _get(hosts[LAION], path)[0].status == 404


@pytest.mark.parametrize(("path", "status"), [("missing", 404), ("gone", 410), ("always_busy", 429)])
def test_errors_have_their_status(hosts: dict[str, str], path: str, status: int) -> None:
    assert _get(hosts[LAION], f"/faults/{path}.jpg")[0].status == status


def test_a_busy_image_is_served_once_its_retry_after_has_passed(hosts: dict[str, str]) -> None:
    response, _ = _get(hosts[LAION], "/faults/busy.jpg")
    assert (response.status, response.getheader("Retry-After")) == (429, "1")
    assert _get(hosts[LAION], "/faults/busy.jpg")[0].status == 429
    time.sleep(1.05)
    assert _get(hosts[LAION], "/faults/busy.jpg")[0].status == 200


def test_a_redirect_leads_to_an_image_and_a_loop_nowhere(hosts: dict[str, str]) -> None:
    response, _ = _get(hosts[LAION], "/faults/moved.jpg")
    assert response.status == 301
    assert _get(hosts[LAION], response.getheader("Location") or "")[0].status == 200
    a, _ = _get(hosts[LAION], "/faults/loop/a")
    b, _ = _get(hosts[LAION], a.getheader("Location") or "")
    assert b.getheader("Location") == "/faults/loop/a"


def test_opt_out_and_html_are_answered_with_200(hosts: dict[str, str]) -> None:
    response, body = _get(hosts[LAION], "/faults/opted_out.jpg")
    assert (response.status, response.getheader("X-Robots-Tag"), body[:2]) == (200, "noai", b"\xff\xd8")
    response, body = _get(hosts[LAION], "/faults/sorry.jpg")
    assert (response.status, body[:9]) == (200, b"<!doctype")
    assert str(response.getheader("Content-Type")).startswith("text/html")


def test_a_slow_host_sends_bytes_and_never_the_whole(hosts: dict[str, str]) -> None:
    connection = http.client.HTTPConnection(hosts[SLOW], timeout=2)
    connection.request("GET", "/faults/dribble.jpg")
    response = connection.getresponse()
    assert response.status == 200
    assert len(response.read1(10)) >= 1
    assert int(response.getheader("Content-Length") or 0) > 10_000
    connection.close()
    with pytest.raises(TimeoutError):
        _get(hosts[SLOW], "/faults/silent.jpg", timeout=0.5)


def test_a_dead_host_refuses_connections(hosts: dict[str, str]) -> None:
    with pytest.raises(ConnectionRefusedError):
        _get(hosts[DEAD], "/faults/0.jpg")


def test_many_clients_are_served_at_once_beside_slow_ones(hosts: dict[str, str], world: Path) -> None:
    wanted = (world / "images/train/3.png").read_bytes()
    with ThreadPoolExecutor(16) as clients:
        stuck = http.client.HTTPConnection(hosts[SLOW], timeout=5)
        stuck.request("GET", "/faults/silent.jpg")
        bodies = list(clients.map(lambda _: _get(hosts[LAION], "/shapes/3.png")[1], range(200)))
        stuck.close()
    assert bodies == [wanted] * 200


def test_one_connection_serves_several_requests(hosts: dict[str, str]) -> None:
    connection = http.client.HTTPConnection(hosts[LAION], timeout=5)
    for number in range(5):
        connection.request("GET", f"/shapes/{number}.png")
        assert connection.getresponse().read()[:4] == b"\x89PNG"
    connection.close()


def _is_listening(where: str) -> bool:
    host, port = where.split(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


def test_the_server_ends_with_its_context_even_while_it_dribbles(world: Path) -> None:
    with serving(Artifact(str(world)), "demo") as hosts:
        where = hosts[LAION]
        connection = http.client.HTTPConnection(where, timeout=5)
        connection.request("GET", "/faults/dribble.jpg")
        started = time.monotonic()
    assert time.monotonic() - started < 4
    assert not _is_listening(where)


def test_a_killed_parent_leaves_no_server_behind(world: Path) -> None:
    code = (
        "import sys, time; from stages.base.artifact import Artifact; from stages.world.plugin import serving\n"
        "with serving(Artifact(sys.argv[1]), 'demo') as hosts:\n"
        "    print(hosts['laion.demo.pairmill.test'], flush=True); time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(world)], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert parent.stdout is not None
    where = parent.stdout.readline().strip()
    assert _is_listening(where)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    until = time.monotonic() + 10
    while _is_listening(where) and time.monotonic() < until:
        time.sleep(0.05)
    assert not _is_listening(where)
