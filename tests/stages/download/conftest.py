"""A loopback web that misbehaves, and pairs artifacts that list it."""

from __future__ import annotations

import hashlib
import io
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from stages.base.artifact import Artifact
from stages.base.contract import StageContext
from stages.base.pairs import image_uid, pair_uid, pairs_schema
from stages.download.config import DownloadConfig
from stages.download.stage import Download
from stages.ingest.config import SourceConfig


def picture(seed: int = 0, size: tuple[int, int] = (64, 48), form: str = "JPEG", **options: Any) -> bytes:
    """An encoded photograph-like image: smooth gradients and some noise."""
    noise = np.random.default_rng(seed).normal(0, 8, (size[1], size[0], 3))
    x, y = np.meshgrid(np.linspace(0, 200, size[0]), np.linspace(0, 200, size[1]))
    pixels = np.clip(np.stack([x, y, (x + y) / 2], axis=-1) + noise, 0, 255).astype(np.uint8)
    stored = io.BytesIO()
    Image.fromarray(pixels).save(stored, format=form, **options)
    return stored.getvalue()


@pytest.fixture(scope="session")
def make_picture() -> Callable[..., bytes]:
    return picture


Answer = tuple[int, dict[str, str], bytes | Iterator[bytes]]


class Web:
    """A server with configured responses, 404 for other paths; counts requests, and how many were concurrent."""

    def __init__(self) -> None:
        self.routes: dict[str, Callable[[int], Answer]] = {}
        self.requests: Counter[str] = Counter()
        self.unrouted: Counter[str] = Counter()
        self.agents: set[str] = set()
        self.connections = 0
        self.hosts: set[str] = set()
        self.most_at_once = 0
        self._now = 0
        self._lock = threading.Lock()
        web = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def setup(self) -> None:
                super().setup()
                with web._lock:
                    web.connections += 1

            def do_GET(self) -> None:
                if self.path not in web.routes:
                    web.unrouted[self.path] += 1
                    self.send_error(404)
                    return
                with web._lock:
                    web.requests[self.path] += 1
                    web.hosts.add(self.headers["Host"])
                    web.agents.add(self.headers["User-Agent"])
                    web._now += 1
                    web.most_at_once = max(web.most_at_once, web._now)
                    turn = web.requests[self.path]
                try:
                    try:
                        status, headers, body = web.routes[self.path](turn)
                    finally:
                        # Before the first byte goes out: with the last one the client may ask the next thing at once.
                        with web._lock:
                            web._now -= 1
                    fixed = {"Content-Length": str(len(body))} if isinstance(body, bytes) else {}
                    if not fixed or "Content-Length" in headers:
                        fixed["Connection"] = "close"
                    self.send_response(status)
                    for name, value in {**fixed, **headers}.items():
                        self.send_header(name, value)
                    self.end_headers()
                    for piece in [body] if isinstance(body, bytes) else body:
                        self.wfile.write(piece)
                except (BrokenPipeError, ConnectionResetError):
                    pass

            def log_message(self, *_: Any) -> None:
                return

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

        self.server = Server(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def serve(self, path: str, body: bytes = b"", status: int = 200, **headers: str) -> None:
        """Always the same answer; header names are given with underscores."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.routes[path] = lambda _: (status, named, body)

    def slow(self, path: str, seconds: float) -> None:
        """Answers only after a while."""

        def answer(_: int) -> Answer:
            time.sleep(seconds)
            return 200, {}, b"late"

        self.routes[path] = answer

    def drip(self, path: str, seconds: float) -> None:
        """Sends a byte every so often, two seconds long."""

        def pieces() -> Iterator[bytes]:
            for _ in range(int(2 / seconds)):
                time.sleep(seconds)
                yield b"x"

        self.routes[path] = lambda _: (200, {}, pieces())


@pytest.fixture
def web() -> Iterator[Web]:
    web = Web()
    yield web
    web.server.shutdown()
    web.server.server_close()


class KeptAliveWeb:
    """Answers with bytes or a behaviour on the bare socket, 404 for other paths, and keeps connections alive where the
    answer was one. Records its requests as (host, path)."""

    def __init__(self) -> None:
        self.routes: dict[str, bytes | Callable[[socket.socket], None]] = {}
        self.requests: list[tuple[str, str]] = []
        self.reused = 0
        self.most_per_connection = 10**6
        """The next request on a connection is read and not answered."""
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        received, turn = b"", 0
        with connection, suppress(OSError):
            while True:
                while b"\r\n\r\n" not in received:
                    piece = connection.recv(65_536)
                    if not piece:
                        return
                    received += piece
                head, _, received = received.partition(b"\r\n\r\n")
                if turn == self.most_per_connection:
                    return
                lines = head.decode("latin-1").split("\r\n")
                host = next(line for line in lines if line.startswith("Host:")).removeprefix("Host: ")
                path = lines[0].split(" ")[1]
                self.requests.append((host, path))
                self.reused += turn > 0
                turn += 1
                route = self.routes.get(path, b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
                if not isinstance(route, bytes):
                    route(connection)
                    return
                connection.sendall(route)
                body = route.partition(b"\r\n\r\n")[2]
                if f"Content-Length: {len(body)}\r\n".encode() not in route:
                    return

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def kept_alive_web() -> Iterator[KeptAliveWeb]:
    web = KeptAliveWeb()
    yield web
    web.close()


@pytest.fixture(scope="session")
def closed_port() -> str:
    """An address where nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{sock.getsockname()[1]}"


@pytest.fixture
def pairs_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Artifact]:
    """An ingest artifact that lists the given URLs or paths, each with one or more captions."""

    def make(
        urls: Sequence[str] = (),
        paths: Sequence[str] = (),
        captions: int = 1,
        files: Mapping[str, bytes] | None = None,
        per_file: int = 10**6,
        meta: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> Artifact:
        folder = tmp_path_factory.mktemp("pairs")
        listed = [(url, None) for url in urls] + [(None, path) for path in paths]
        rows = [
            {
                "uid": pair_uid("src", url or path or "", f"caption {n}"),
                "image_uid": image_uid("src", url or path or ""),
                "source": "src",
                "url": url,
                "path": path,
                "caption": f"caption {n}",
                "license": None,
                "meta": json.dumps((meta or {}).get(url or path or "", {})),
            }
            for url, path in listed
            for n in range(captions)
        ]
        rows.sort(key=lambda row: (str(row["image_uid"]), str(row["uid"])))
        names = []
        for start in range(0, len(rows), per_file):
            names.append(f"pairs-{start // per_file:05d}.parquet")
            table = pa.Table.from_pylist(rows[start : start + per_file], pairs_schema())
            pq.write_table(table, folder / names[-1])
        for name, data in (files or {}).items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(data)
            names.append(name)
        sealed = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
        manifest = {"fingerprint": sealed, "counts": {}, "files": [{"name": name} for name in names]}
        (folder / "manifest.json").write_text(json.dumps(manifest))
        return Artifact(str(folder))

    return make


class Served(Download):
    """The download stage with host names played by servers of the test's own."""

    hosts: Mapping[str, str] = {}

    @contextmanager
    def _served(self, context: StageContext, remote: bool) -> Iterator[Mapping[str, str]]:
        yield self.hosts


@pytest.fixture
def download(run_stage: Callable[..., Artifact]) -> Callable[..., Artifact]:
    """Runs the stage over a pairs artifact."""

    def run(
        pairs: Artifact,
        hosts: Mapping[str, str] | None = None,
        source: Mapping[str, Any] | None = None,
        previous: Artifact | None = None,
        tombstones: Path | None = None,
        name: str = "src",
        cache: Path | None = None,
        **settings: Any,
    ) -> Artifact:
        fast = {"timeout": 10.0, "backoff": 0.01, "max_wait": 0.3}
        described = SourceConfig(kind="test", paths=("list",), **(source or {}))
        stage = Served(DownloadConfig(name=name, source=described, **{**fast, **settings}))
        stage.hosts = hosts or {}
        inputs = {"pairs": [pairs]} if previous is None else {"pairs": [pairs], "previous": [previous]}
        return run_stage(stage, inputs, tombstones=tombstones, cache=cache)

    return run


@pytest.fixture
def attempts() -> Callable[[Artifact], dict[str, dict[str, Any]]]:
    """Rows of an artifact's attempts by url or path."""

    def read(artifact: Artifact) -> dict[str, dict[str, Any]]:
        rows = [
            row
            for name in artifact.names("attempts-*.parquet")
            for row in pq.read_table(artifact.path(name)).to_pylist()
        ]
        keys = [[row[name] for name in ("url", "path", "image_uid") if row[name] is not None] for row in rows]
        return {key[0]: row for key, row in zip(keys, rows, strict=True)}

    return read


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path
