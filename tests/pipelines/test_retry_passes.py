"""Failed downloads are tried again in rounds that build on each other, and only where there is something to try."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from pipelines import retry_passes
from pipelines.compose import load
from pipelines.dag import build
from pipelines.node import Dag
from pipelines.state import Workspace
from pipelines.store import Store


@pytest.fixture
def opened(tmp_path: Path) -> Callable[..., tuple[Dag, Workspace]]:
    """The DAG of two sources, and the workspace it lives in."""
    for name in ("one", "two"):
        (tmp_path / f"{name}.tsv").write_text(f"http://a.test/{name}.jpg\tcaption\n")

    def build_dag(*overrides: str) -> tuple[Dag, Workspace]:
        words = [f"++sources.{name}={{kind: cc12m, paths: [{tmp_path}/{name}.tsv]}}" for name in ("one", "two")]
        base = ["world=[]", "source=[]", "task=[]", "benchmark=[]", "held_out=[]", "tokenizer=bpe_50k"]
        config = load([*base, *words, f"workspace={tmp_path / 'w'}", *overrides])
        dag = build(config)
        return dag, Workspace(dag, Store(config.workspace))

    return build_dag


def finish(workspace: Workspace, node_id: str, **counts: int) -> None:
    """Seal an artifact of the node with these counts."""
    artifact_dir = workspace.artifact_dir(workspace.dag[node_id])
    Path(artifact_dir.url).mkdir(parents=True, exist_ok=True)
    named = {name.replace("__", "."): n for name, n in counts.items()}
    artifact_dir.seal({"fingerprint": workspace.require(workspace.dag[node_id]), "counts": named, "files": []}, {})


def test_a_round_is_begun_where_failures_may_pass_and_builds_on_the_one_before(opened: Any) -> None:
    dag, workspace = opened()
    finish(workspace, "download[one]", images=9, success=5, status__http_404=2, status__timeout=2)
    finish(workspace, "download[two]", images=9, success=5, status__http_404=4)
    artifact_dir = workspace.artifact_dir(dag["download[one]"]).url

    told = retry_passes.advance(workspace, dag, ["download[one]", "download[two]"])

    assert told == ["download[one]: retry pass 1 fetches 2 images again (timeout 2)"]
    dag, workspace = opened()
    assert [i for i in dag if i.startswith("download")] == ["download[one@0]", "download[one]", "download[two]"]
    assert dag["download[one]"].inputs["previous"] == ("download[one@0]",)
    assert dag["signals[one]"].inputs["raw"] == ("download[one]",)
    assert workspace.artifact_dir(dag["download[one@0]"]).url == artifact_dir
    assert workspace.state(dag["download[one@0]"]).standing == "up to date"
    assert workspace.state(dag["download[one]"]).standing == "missing"
    assert workspace.state(dag["download[two]"]).standing == "up to date"

    assert retry_passes.advance(workspace, dag, ["download[one]"]) == []  # its first round is not finished
    finish(workspace, "download[one]", images=9, success=6, status__http_404=2, status__dns=1)
    assert retry_passes.advance(workspace, dag, ["signals[one]"]) == [
        "download[one]: retry pass 2 fetches 1 images again (dns 1)"
    ]
    dag, workspace = opened()
    assert [i for i in dag if i.startswith("download[one")] == ["download[one@0]", "download[one@1]", "download[one]"]


def test_rounds_belong_to_a_source_as_it_is_configured(opened: Any) -> None:
    dag, workspace = opened()
    finish(workspace, "download[one]", images=1, status__timeout=1)
    retry_passes.advance(workspace, dag, ["download[one]"])
    assert "download[one@0]" in opened()[0]
    assert "download[one@0]" in opened("download.timeout=3", "download.per_host=2")[0]  # how, not what
    assert "download[one@0]" not in opened("download.max_bytes=2048")[0]


def test_only_sources_that_the_target_needs_are_tried_again(opened: Any) -> None:
    dag, workspace = opened()
    for name in ("one", "two"):
        finish(workspace, f"download[{name}]", images=1, status__timeout=1)
    assert len(retry_passes.advance(workspace, dag, ["download[two]"])) == 1
    assert "download[one@0]" not in opened()[0]


class Flaky:
    """A server that is too busy for some paths until it has recovered."""

    def __init__(self, picture: bytes) -> None:
        self.asked: Counter[str] = Counter()
        self.recovered = False
        flaky = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                flaky.asked[self.path] += 1
                good = self.path.endswith(".jpg") and ("busy" not in self.path or flaky.recovered)
                self.send_response(200 if good else 503 if "busy" in self.path else 404)
                self.end_headers()
                self.wfile.write(picture if good else b"")

            def log_message(self, *_: Any) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()


@pytest.fixture
def flaky() -> Iterator[Flaky]:
    import io

    from PIL import Image

    stored = io.BytesIO()
    Image.radial_gradient("L").save(stored, "JPEG")
    server = Flaky(stored.getvalue())
    yield server
    server.server.shutdown()
    server.server.server_close()


@pytest.mark.slow
def test_the_command_tries_again_what_may_pass_and_nothing_else(flaky: Flaky, tmp_path: Path) -> None:
    address = f"http://127.0.0.1:{flaky.server.server_address[1]}"
    names = ["0.jpg", "1.jpg", "gone", "busy-2.jpg"]
    (tmp_path / "list.tsv").write_text("".join(f"{address}/{name}\tcaption of {name}\n" for name in names))
    words = [
        *("world=[]", "source=[]", "task=[]", "benchmark=[]", "held_out=[]", "tokenizer=bpe_50k", "cluster.cpus=1"),
        f"++sources.mine={{kind: cc12m, paths: [{tmp_path}/list.tsv]}}",
        *("download.allow_private_hosts=[127.0.0.1]", "download.backoff=0.01", f"workspace={tmp_path / 'w'}"),
    ]

    def run(*more: str) -> str:
        command = [sys.executable, "-m", "pipelines.main", "run", "download", *more, *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def counts() -> list[dict[str, int]]:
        manifests = [json.loads(p.read_text()) for p in (tmp_path / "w").glob("artifacts/download/*/manifest.json")]
        return [m["counts"] for m in sorted(manifests, key=lambda m: m["config"]["round"])]

    run()
    assert counts()[0] | {"bytes": 0} == {
        "bytes": 0,
        "images": 4,
        "status.http_404": 1,
        "status.http_503": 1,
        "success": 2,
    }
    flaky.recovered = True
    flaky.asked.clear()
    assert "retry pass 1 fetches 1 images again (http_503 1)" in run("--retry-failed")
    assert {path for path in flaky.asked if path not in ("/robots.txt", "/.well-known/tdmrep.json")} == {"/busy-2.jpg"}
    assert counts()[1]["success"] == 3
    flaky.asked.clear()
    assert "nothing to retry" in run("--retry-failed")
    assert not flaky.asked
    assert "3 of 4 images fetched" in run()
