"""`pairmill ui`: the MLflow UI of the workspace, for this machine alone (127.0.0.1)."""

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

from pipelines.commands import add_overrides
from pipelines.tracking.config import Backend, backend, environment, home
from pipelines.tracking.deliver import deliver_pending
from pipelines.tracking.spool import pending
from stages.base.contract import UserError

HOST = "127.0.0.1"

#: Number of ports that are tried, and seconds within which the server must answer.
_PORTS = 100
_START_SECONDS = 120.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--port", type=int, default=5000, help="first port to try (default: 5000)")
    add_overrides(parser)


def main(arguments: argparse.Namespace) -> int:
    """Open the UI of the workspace that the configuration names."""
    from pipelines.compose import load

    return serve(load(arguments.overrides).workspace, arguments.port)


def serve(workspace: str, port: int = 5000) -> int:
    """Deliver the spool, print the address, serve until Ctrl-C. Raises UserError if the server fails."""
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
    raise UserError(f"the MLflow server stopped; see {log}")


@contextlib.contextmanager
def _server(store: Backend, port: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The server in a process group of its own, which is killed at the end, also when this process is terminated."""
    words = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store.uri, "--host", HOST]
    words += ["--port", str(port), "--workers", "1"]
    words += ["--default-artifact-root", store.artifact_root] if store.artifact_root else []
    before = signal.signal(signal.SIGTERM, _raise_interrupt)
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


def _raise_interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _free_port(first: int) -> int:
    last = min(first + _PORTS, 65536)
    for port in range(first, last):
        with socket.socket() as probe:
            # The server sets this too: a port in TIME_WAIT is free.
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
            # No proxy from the environment between this machine and itself.
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(f"http://{HOST}:{port}/health", timeout=5):
                return
        time.sleep(0.1)
    raise UserError(f"the MLflow server did not start; see {log}")
