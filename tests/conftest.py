"""Fixtures every test may use: the shared data, an in-process stage runner, one Ray for the whole session."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import hypothesis
import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

# On a busy machine an example may take any time; what must be fast is measured in benchmarks/.
hypothesis.settings.register_profile("pairmill", deadline=None)
hypothesis.settings.load_profile("pairmill")

ROOT = Path(__file__).resolve().parents[1]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of single test files; pytest takes them from the root conftest only."""
    parser.addoption(
        "--pin-fingerprints", action="store_true", help="write tests/pipelines/golden/fingerprints.json anew"
    )


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of real data and golden cases; the test is skipped where it is absent."""
    folder = Path(os.environ.get("PAIRMILL_SHARED", ROOT.parent / "shared"))
    if not (folder / "golden").is_dir():
        pytest.skip("no shared data: set PAIRMILL_SHARED to its folder")
    return folder


@pytest.fixture
def run_stage(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Executes a stage in this process the way the runner does: partitions, run, finish, manifest."""
    from pipelines.fingerprint import fingerprint, fingerprinted
    from pipelines.run_partition import ArtifactJob, close, planned, run_partition
    from stages.base.artifact import Artifact
    from stages.base.contract import Stage

    def run(
        stage: Stage[Any],
        inputs: Mapping[str, Sequence[Artifact]],
        cluster: Mapping[str, Any] | None = None,
        reverse: bool = False,
        cache: Path | None = None,
        tombstones: Path | None = None,
    ) -> Artifact:
        held = {role: tuple(artifacts) for role, artifacts in inputs.items()}
        prints = {role: [a.fingerprint for a in artifacts] for role, artifacts in held.items()}
        config = fingerprinted(stage.config)
        mark = fingerprint(stage.name, stage.version, config, prints)
        root = tmp_path_factory.mktemp(stage.name)
        default = {
            "workers": 1,
            "cpus_per_worker": 1,
            "gpus_per_worker": 0,
            "precision": "fp32",
            "max_failures": 0,
        }
        url = str(root / "artifact")
        job = ArtifactJob(
            stage.name,
            stage,
            mark,
            url,
            held,
            str(root / "scratch"),
            {**default, **(cluster or {})},
            str(cache or root / "cache"),
            str(tombstones or root / "forgotten.json"),
        )
        plan = planned(job)
        stage.setup()
        reports: list[Mapping[str, Any]] = []
        for partition in reversed(plan) if reverse else plan:
            reports.append(run_partition(job, partition))
            stage.on_commit(reports)
        identity = {
            "stage": stage.name,
            "version": stage.version,
            "fingerprint": mark,
            "config": config,
            "inputs": prints,
        }
        return close(job, [p.id for p in plan], identity, {})

    return run


@pytest.fixture(scope="session")
def write_verdicts() -> Callable[..., None]:
    """Writes the files with verdicts of a `select` artifact, from rows in any order.

    Ranges have so many pairs as `range_rows` says, and at least one part each. What is in none of the `pairs`
    artifacts goes into the last range.
    """
    import json

    import pyarrow as pa
    import pyarrow.parquet as pq

    def write(folder: Path, rows: Sequence[Mapping[str, Any]], pairs: Sequence[Any], range_rows: int = 1) -> None:
        left = {row["uid"]: row for row in rows}
        ranges: list[tuple[list[tuple[int, str]], list[Any]]] = []
        for number, artifact in enumerate(pairs):
            for name in artifact.names("pairs-*.parquet"):
                listed = pq.read_table(artifact.path(name), columns=["uid"])["uid"].to_pylist()
                found = [left.pop(uid) for uid in listed if uid in left]
                if not ranges or len(ranges[-1][1]) + len(found) > range_rows:
                    ranges.append(([], []))
                ranges[-1][0].append((number, name.removeprefix("pairs-").removesuffix(".parquet")))
                ranges[-1][1].extend(found)
        if left:
            ranges = ranges or [([], [])]
            ranges[-1][1].extend(left.values())
        schema = pa.Table.from_pylist(list(rows)).schema
        for number, (_, found) in enumerate(ranges):
            pq.write_table(pa.Table.from_pylist(found, schema), folder / f"verdicts-{number:05d}.parquet")
        entries = [{"parts": parts, "images": 0, "pairs": len(found)} for parts, found in ranges]
        (folder / "ranges.json").write_text(json.dumps(entries))

    return write


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB; `mount -o remount,size=` enlarges it."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(folder)]
    if sys.platform != "linux" or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(scope="session")
def outside_packages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty folder on the import path of this process and of Ray's workers, for packages from outside the tree."""
    folder = tmp_path_factory.mktemp("outside_packages")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
        yield folder


@pytest.fixture(scope="session")
def ray_session(outside_packages: Path) -> Iterator[None]:
    """One Ray of two CPUs for all tests that need one."""
    import ray

    from pipelines.ray_session import start

    start(cpus=2)
    yield
    ray.shutdown()
