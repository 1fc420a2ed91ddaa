"""Any interleaving of kills and restarts gives the same artifacts, byte for byte; so do one worker and two."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parents[2]


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves files, some of them a moment late, so that they do not arrive in the order they are asked for."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        time.sleep(0.02 * random.randrange(3))
        super().do_GET()

    def log_message(self, *_: Any) -> None:
        return


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A folder served over loopback, and its address."""
    folder = tmp_path_factory.mktemp("site")

    def handler(*args: Any) -> Handler:
        return Handler(*args, directory=str(folder))

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def sources(site: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Two sources, one with most that can happen to a picture, as overrides."""
    import numpy as np
    from PIL import Image

    folder, address = site
    lists = tmp_path_factory.mktemp("lists")
    turned = Image.Exif()
    turned[0x0112] = 6
    for number in range(18):
        random = np.random.default_rng(number if number != 7 else 3)  # one picture twice, saved differently
        pixels = Image.fromarray(random.integers(0, 255, (6, 8, 3), dtype=np.uint8)).resize((96, 72))
        out = io.BytesIO()
        pixels.save(out, "JPEG", quality=90 if number != 7 else 70, exif=turned if number == 5 else b"")
        data = out.getvalue() if number != 11 else out.getvalue()[:900]
        (folder / f"{number}.jpg").write_bytes(data)
    shutil.copy(folder / "0.jpg", folder / "copy.jpg")
    for name, numbers in {"web": [*range(12), "copy", "gone"], "more": range(12, 18)}.items():
        rows = [f"{address}/{n}.jpg\tpicture number {n} of the whole list" for n in numbers]
        (lists / f"{name}.tsv").write_text("\n".join([*rows, rows[0], "a line without an address"]) + "\n")
    return tuple(
        word
        for name in ("web", "more")
        for word in (f"++sources.{name}.kind=cc12m", f"++sources.{name}.paths=[{lists}/{name}.tsv]")
    )


class Mill:
    """Starts processes that may be killed, on workspaces of its own."""

    def __init__(self, root: Path, sources: tuple[str, ...]) -> None:
        self.root = root
        self.sources = sources
        self.number = 0
        self.log = root / "log"
        script = Path(__file__).with_name("interleaving_driver.py")
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        self.driver = subprocess.Popen(
            [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def workspace(self) -> Path:
        self.number += 1
        return self.root / f"workspace-{self.number}"

    def start(
        self, workspace: Path, target: str, kill_at: int | None = None, order: int | None = None, cpus: int = 0
    ) -> dict[str, int]:
        """Run once, on a Ray of so many CPUs, or without one; `code` is -9 when the process was killed."""
        assert self.driver.stdin is not None
        assert self.driver.stdout is not None
        overrides = [
            *("world=[]", "source=[]", "task=[]", "benchmark=[]", "held_out=[]", "tokenizer=bpe_50k"),
            *self.sources,
            *("selection=datacomp_basic", "selection.rules.min_side=16", "selection.duplicates.exact=true"),
            "selection.duplicates.near={hash: phash, radius: 8, max_difference: 2.0}",
            *("ingest.bytes_per_partition=400", "ingest.pairs_per_file=5", "signals.families=[cheap]"),
            *("download.allow_private_hosts=[127.0.0.0/8]", "download.per_host_rate=10000", "download.robots=false"),
            *("download.tdm_reservation=header", "download.threads=4", "shard.max_samples=4"),
            f"cluster.cpus={cpus or 1}",
            f"workspace={workspace}",
        ]
        task = {"overrides": overrides, "target": target, "kill_at": kill_at, "order": order, "ray": cpus > 0}
        self.driver.stdin.write(json.dumps({**task, "log": str(self.log)}) + "\n")
        self.driver.stdin.flush()
        answer: dict[str, int] = json.loads(self.driver.stdout.readline())
        assert answer["code"] in (0, -9), self.log.read_text()[-4000:]
        return answer

    def close(self) -> None:
        assert self.driver.stdin is not None
        self.driver.stdin.close()
        self.driver.wait(timeout=30)


@pytest.fixture(scope="module")
def mill(tmp_path_factory: pytest.TempPathFactory, sources: tuple[str, ...]) -> Iterator[Mill]:
    mill = Mill(tmp_path_factory.mktemp("mill"), sources)
    yield mill
    mill.close()


class Made:
    """The finished artifacts of a workspace.

    Only what a manifest lists belongs to one: a kill may leave the runner's own half-written files beside it.
    """

    def __init__(self, workspace: Path, changes: int = 0) -> None:
        """`changes`: of files, which the driver made for it when nothing happened to it."""
        self.changes = changes
        self.files: dict[str, str] = {}
        for manifest in workspace.glob("artifacts/*/*/manifest.json"):
            listed = [entry["name"] for entry in json.loads(manifest.read_text())["files"]]
            for name in ("manifest.json", *listed):
                path = manifest.parent / name
                self.files[path.relative_to(workspace).as_posix()] = hashlib.sha256(path.read_bytes()).hexdigest()

    def __repr__(self) -> str:
        return f"{len(self.files)} files"

    def unlike(self, other: Made) -> list[str]:
        """Names that only one of two has, or that differ."""
        both = self.files.keys() | other.files.keys()
        return sorted(name for name in both if self.files.get(name) != other.files.get(name))


@pytest.fixture(scope="module")
def undisturbed(mill: Mill) -> Made:
    """What a run that nothing happens to makes, up to the signals, and how many changes of files that takes."""
    workspace = mill.workspace()
    changes = mill.start(workspace, "signals")["changes"]
    found = Made(workspace, changes)
    assert {name.split("/")[1] for name in found.files} == {"ingest", "download", "signals"}
    assert sum(name.endswith("manifest.json") for name in found.files) == 6
    assert sum("/raw-" in name for name in found.files) == 5
    return found


#: When each process is killed, as a share of the changes of files that an undisturbed run makes, and the seed of the
#: order in which it makes partitions.
kills = st.lists(st.tuples(st.floats(0.005, 0.995), st.integers(0, 9)), min_size=1, max_size=3)


def compare(mill: Mill, undisturbed: Made, moments: list[tuple[float, int]], last: int) -> None:
    """Kill one process after the other on one workspace, let the last one work in peace, and look at the result."""
    workspace = mill.workspace()
    for share, order in moments:
        # Late moments may come after what earlier processes left to do.
        if mill.start(workspace, "signals", max(1, int(share * undisturbed.changes)), order)["code"] == 0:
            break
    assert mill.start(workspace, "signals", order=last)["code"] == 0
    assert Made(workspace).unlike(undisturbed) == []
    shutil.rmtree(workspace)


QUICK = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]}


@settings(max_examples=5, **QUICK)
@given(moments=kills, last=st.integers(0, 9))
def test_whenever_a_run_is_killed_and_started_again_its_artifacts_are_those_of_an_undisturbed_one(
    mill: Mill, undisturbed: Made, moments: list[tuple[float, int]], last: int
) -> None:
    compare(mill, undisturbed, moments, last)


@pytest.mark.slow
@settings(max_examples=100, **QUICK)
@given(moments=kills, last=st.integers(0, 9))
def test_the_same_for_many_more_moments(
    mill: Mill, undisturbed: Made, moments: list[tuple[float, int]], last: int
) -> None:
    compare(mill, undisturbed, moments, last)


@pytest.mark.slow
def test_two_workers_make_the_same_as_one(mill: Mill, undisturbed: Made) -> None:
    workspace = mill.workspace()
    assert mill.start(workspace, "signals", cpus=2)["code"] == 0
    assert Made(workspace).unlike(undisturbed) == []


@pytest.mark.slow
@settings(max_examples=4, **QUICK)
@given(moments=st.lists(st.tuples(st.floats(0.005, 0.995), st.integers(1, 2)), min_size=1, max_size=3))
def test_a_whole_run_up_to_shards_killed_on_one_and_two_workers_ends_like_an_undisturbed_one(
    mill: Mill, whole: Made, moments: list[tuple[float, int]]
) -> None:
    workspace = mill.workspace()
    for share, cpus in moments:
        if mill.start(workspace, "shard", max(1, int(share * whole.changes)), cpus=cpus)["code"] == 0:
            break
    assert mill.start(workspace, "shard", cpus=2)["code"] == 0
    assert Made(workspace).unlike(whole) == []
    shutil.rmtree(workspace)


@pytest.fixture(scope="module")
def whole(mill: Mill) -> Made:
    """What one worker makes of everything up to the shards, and the driver's own changes of files in that run."""
    workspace = mill.workspace()
    changes = mill.start(workspace, "shard", cpus=1)["changes"]
    found = Made(workspace, changes)
    stages = {name.split("/")[1] for name in found.files}
    assert stages == {"ingest", "download", "signals", "index", "select", "shard"}
    return found
