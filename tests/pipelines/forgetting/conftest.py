"""A small demonstration workspace, made by the real stages once, and copies of it to work on."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import io
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipelines.compose import load
from pipelines.dag import build
from pipelines.fingerprint import fingerprinted
from pipelines.lineage import artifact_dirs
from pipelines.main import main
from pipelines.run_partition import ArtifactJob, close, planned, run_partition
from pipelines.state import Workspace
from pipelines.store import ArtifactDir, Store
from stages.base.artifact import Artifact, file_sha256

SETTINGS = (
    "source=demo_cc3m,demo_coco,demo_medical",
    "worlds.demo.train_images=40",
    "worlds.demo.test_images=8",
    "worlds.demo.corpus_captions=500",
    "ingest.pairs_per_file=12",
    "shard.max_samples=8",
    "signals.families=[cheap]",
    "sources.demo_medical.burned_in_text=keep",
    "tokenizer.vocabulary=1400",
    "model.vocabulary=1400",
    "tracking.enabled=false",
)
DATA = ("world", "ingest", "download", "signals", "index", "select", "shard", "tokenizer", "tokens")


@dataclass
class Mill:
    """A workspace and what can be done to it."""

    root: Path
    settings: tuple[str, ...] = SETTINGS

    def words(self, *more: str) -> list[str]:
        """Overrides that name the workspace; later ones win."""
        return [*self.settings, f"workspace={self.root}", *more]

    @property
    def store(self) -> Store:
        return Store(str(self.root))

    def make(self, *overrides: str, stages: Sequence[str] = DATA) -> None:
        """What `pairmill run` does, in this process and without progress."""
        config = load(self.words(*overrides))
        workspace = Workspace(build(config), Store(config.workspace))
        for node in workspace.dag.values():
            if node.stage.name not in stages or workspace.artifact(node) is not None:
                continue
            artifact_dir, store = workspace.artifact_dir(node), workspace.store
            found = {role: [workspace.artifact(workspace.dag[i]) for i in ids] for role, ids in node.inputs.items()}
            inputs = {role: tuple(a for a in artifacts if a is not None) for role, artifacts in found.items()}
            mark = workspace.require(node)
            stage = node.stage(node.config)
            scratch = str(store.scratch(stage.name, mark))
            cluster = config.cluster.model_dump()
            job = ArtifactJob(
                node.id,
                stage,
                mark,
                artifact_dir.url,
                inputs,
                scratch,
                cluster,
                store.cache(stage.name),
                store.tombstones,
            )
            stage.setup()
            partitions = planned(job)
            for partition in partitions:
                run_partition(job, partition)
            prints = {role: [a.fingerprint for a in artifacts] for role, artifacts in inputs.items()}
            identity = {"stage": stage.name, "node": node.id, "version": stage.version, "fingerprint": mark}
            identity |= {"config": fingerprinted(node.config), "inputs": prints}
            close(job, [p.id for p in partitions], identity, {"started": f"2026-01-01T00:00:{len(self.made()):02}"})
            store.set_latest(node.id, workspace.record(node))

    def made(self) -> list[Artifact]:
        """All finished artifacts."""
        return [
            artifact for artifact_dir in artifact_dirs(self.store) if (artifact := artifact_dir.artifact()) is not None
        ]

    def of(self, stage: str, source: str = "") -> Artifact:
        """The artifact of a stage (and source)."""
        (found,) = (
            a
            for a in self.made()
            if a.manifest["stage"] == stage and a.manifest["node"].endswith(f"{source}]" * bool(source))
        )
        return found

    def train(self, node: str, fingerprint: str, inputs: dict[str, list[str]], key: str | None = None) -> Artifact:
        """A finished model, as far as lineage looks at one."""
        stage, _, instance = node.rstrip("]").partition("[")
        artifact_dir = self.store.artifact_dir(stage, instance, fingerprint)
        (Path(artifact_dir.url) / "model").mkdir(parents=True)
        (Path(artifact_dir.url) / "model" / "config.json").write_text("{}")
        manifest = {"stage": stage, "node": node, "fingerprint": fingerprint, "config": {}, "inputs": inputs}
        files = [{"name": "model/config.json", "size": 2, "sha256": hashlib.sha256(b"{}").hexdigest()}]
        if key:
            record = {"key": key, "tracked": [], "registers": True, "finished": True}
            artifact_dir.write("_tracking.json", json.dumps(record))
        return artifact_dir.seal({**manifest, "counts": {}, "files": files}, {})

    def pairs(self, source: str) -> list[dict[str, Any]]:
        """Rows of a source's pairs."""
        artifact = self.of("ingest", source)
        return [r for name in artifact.names("pairs-*.parquet") for r in pq.read_table(artifact.path(name)).to_pylist()]

    def verdicts(self) -> dict[str, dict[str, Any]]:
        """Verdicts by uid."""
        select = self.of("select")
        tables = [pq.read_table(select.path(name)) for name in select.names("verdicts-*.parquet")]
        return {row["uid"]: row for table in tables for row in table.to_pylist()}

    def files(self) -> dict[str, tuple[str, int]]:
        """sha256 and time of every file of the artifacts."""
        paths = [p for p in (self.root / "artifacts").rglob("*") if p.is_file() and p.name != "_lock"]
        return {str(p.relative_to(self.root)): (file_sha256(p), p.stat().st_mtime_ns) for p in paths}

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """The real command on this workspace, without the second that a process takes to start."""
        line = [*words, *self.words()]
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = main(line)
            finally:
                gc.enable()  # which the command turns off
        return subprocess.CompletedProcess(line, code, out.getvalue(), err.getvalue())

    def artifact_dir(self, artifact: Artifact) -> ArtifactDir:
        return ArtifactDir(artifact.url)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> Mill:
    """The workspace that is only read."""
    mill = Mill(tmp_path_factory.mktemp("demo") / "workspace")
    mill.make()
    return mill


@pytest.fixture
def copy(made: Mill, tmp_path: Path) -> Callable[[str], Mill]:
    """Copies of it under a name."""

    def make(name: str) -> Mill:
        shutil.copytree(made.root, tmp_path / name, copy_function=shutil.copy2)
        return Mill(tmp_path / name)

    return make


@pytest.fixture
def mill(copy: Callable[[str], Mill]) -> Mill:
    """One that may be changed."""
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    return copy("workspace")
