"""The demonstration's hosts, and the process that plays them."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DOMAIN = "demo.pairmill.test"
#: One host per list, and two that are ill.
LISTS = ("laion", "cc3m", "cc12m", "coco")
SLOW, DEAD = "slow", "dead"


def url(host: str, path: str) -> str:
    """A URL as the lists have it."""
    return f"http://{host}.{DOMAIN}{path}"


@contextmanager
def served(root: Path) -> Iterator[dict[str, str]]:
    """Run the server over a world's folder; yields host name -> ``127.0.0.1:port``.

    Raises RuntimeError when the server does not start.
    """
    command = [sys.executable, "-I", "-S", str(Path(__file__).with_name("server.py")), str(root.resolve())]
    # A session of its own: Ctrl-C is the parent's to handle, and the server's end follows from it.
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        with process.stdout, socket.socket() as dead:
            # Bound but not listening: connections are refused, and nobody else gets the port meanwhile.
            dead.bind(("127.0.0.1", 0))
            port = process.stdout.readline().strip()
            if not port:
                raise RuntimeError(f"the demonstration's server did not start (exit code {process.wait()})")
            hosts = {f"{host}.{DOMAIN}": f"127.0.0.1:{port.decode()}" for host in (*LISTS, SLOW)}
            hosts[f"{DEAD}.{DOMAIN}"] = f"127.0.0.1:{dead.getsockname()[1]}"
            yield hosts
    finally:
        process.stdin.close()
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
