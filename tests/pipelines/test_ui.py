"""`pairmill ui` serves the workspace's store to this machine alone, and ends cleanly."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.commands.ui import serve
from pipelines.tracking.config import TrackingConfig
from pipelines.tracking.tracker import Tracker
from stages.base.contract import UserError

ROOT = Path(__file__).resolve().parents[2]


def _spooled(workspace: Path) -> None:
    tracker = Tracker(TrackingConfig(experiment="spooled"), str(workspace))
    tracker.start("run demo", {}, {})
    tracker.close()


def _listening(port: int) -> set[str]:
    """Local addresses, in hex as the kernel prints them, on which something listens to that port."""
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            address, number = line.split()[1].split(":")
            if int(number, 16) == port and line.split()[3] == "0A":
                found.add(address)
    return found


@pytest.fixture(autouse=True)
def own_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture
def taken() -> Iterator[int]:
    """A port somebody else listens on."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


def test_the_ui_delivers_the_spool_and_answers_on_the_loopback_address_only(tmp_path: Path, taken: int) -> None:
    _spooled(tmp_path)
    # Ctrl-C as a terminal has it: tests that a shell started in the background would hand down "ignored".
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code += f"from pipelines.commands.ui import serve; raise SystemExit(serve({str(tmp_path)!r}, {taken}))"
    ui = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert ui.stdout is not None
        line = ui.stdout.readline()
        port = int(line.split("127.0.0.1:")[1].split()[0])
        assert taken < port <= taken + 100
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=20) as page:
            assert b"MLflow" in page.read()
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/api/2.0/mlflow/experiments/search",
            data=b'{"max_results": 10}',
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            names = {experiment["name"] for experiment in json.load(answer)["experiments"]}
        assert "spooled" in names
        assert _listening(port) == {"0100007F"}
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.2", port), timeout=5)
        ui.send_signal(signal.SIGINT)
        assert ui.wait(30) == 0
        assert ui.stdout.read() == ""
        deadline = time.monotonic() + 10
        while _listening(port) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not _listening(port), "the server outlived the command"
    finally:
        if ui.poll() is None:
            os.kill(ui.pid, signal.SIGTERM)
            ui.wait(30)


def test_a_workspace_without_a_store_is_told_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing has been tracked yet; run `make demo`") as raised:
        serve(str(tmp_path))
    assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_a_tracking_server_of_the_users_own_is_named_and_no_second_one_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.example:5000")
    assert serve(str(tmp_path)) == 0
    assert "http://mlflow.example:5000" in capsys.readouterr().out
