"""`pairmill ui`: MLflow's web page of the workspace, for this machine alone (127.0.0.1)."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from pipelines.tracking.backend import Backend, backend, environment, home
from pipelines.tracking.process import deliver_pending
from pipelines.tracking.spool import pending
from stages.base.contract import UserError

HOST = "127.0.0.1"

#: How many ports after the wanted one are tried, and how long the server may take to answer.
_PORTS = 100
_START_SECONDS = 120.0


def main(arguments: argparse.Namespace) -> int:
    """Open the UI of the workspace that the configuration names."""
    from pipelines.compose import load

    return run(load(arguments.overrides).workspace, arguments.port)


def run(workspace: str, port: int = 5000) -> int:
    """Deliver what is spooled, serve until Ctrl-C, say where in one line. Raises UserError."""
    store = backend(workspace)
    if not pending(home(workspace)) and store.database and not store.database.exists():
        raise UserError(f"{store.database}: nothing has been tracked yet; run `make demo` or `pairmill run data` first")
    # Before the server starts, so that one process alone makes the tables of a new store.
    deliver_pending(workspace)
    if store.is_server:
        print(f"MLflow: {store.uri} (MLFLOW_TRACKING_URI)")
        return 0
    port = _free_port(port)
    log = home(workspace) / "mlflow" / "server.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with _server(store, port, log) as server:
        try:
            _wait_until_it_answers(server, port, log)
            print(f"MLflow: http://{HOST}:{port} (Ctrl-C ends it)", flush=True)
            server.wait()
        except KeyboardInterrupt:
            return 0
    raise UserError(f"the MLflow server ended by itself; see {log}")


@contextlib.contextmanager
def _server(store: Backend, port: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The server in a process group of its own, which is gone at the end, however this process is asked to end."""
    words = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store.uri, "--host", HOST]
    words += ["--port", str(port), "--workers", "1"]
    words += ["--default-artifact-root", store.artifact_root] if store.artifact_root else []
    before = signal.signal(signal.SIGTERM, _as_interrupt)
    with open(log, "ab") as output:
        server = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment(),
            start_new_session=True,
        )
    try:
        yield server
    finally:
        signal.signal(signal.SIGTERM, before)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def _as_interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _free_port(first: int) -> int:
    last = min(first + _PORTS, 65536)
    for port in range(first, last):
        with socket.socket() as probe:
            # As the server itself will: a port left in TIME_WAIT is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    raise UserError(f"--port {first}: no free port between {first} and {last - 1} on {HOST}; name another")


def _wait_until_it_answers(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
            # A proxy from the environment has no business between this machine and itself.
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(f"http://{HOST}:{port}/health", timeout=5):
                return
        time.sleep(0.1)
    raise UserError(f"the MLflow server did not start; see {log}")
