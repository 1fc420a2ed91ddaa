"""What the tests of tracking share: a workspace, and the few things the runner does that tracking looks at."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

from pipelines.store import ArtifactDir
from pipelines.tracking.config import TrackingConfig, backend
from pipelines.tracking.deliver import main
from pipelines.tracking.tracker import Tracker
from stages.base.artifact import Artifact
from stages.base.contract import Stage, StageConfig

SECRET = "patient-4711"


class Train(Stage[StageConfig]):
    name = "pretrain"
    version = 3
    tracked = ("report.html", "samples/*")
    registers = True
    holds_samples = False

    def partitions(self, inputs: Any) -> Any:
        return []

    def run(self, partition: Any, context: Any) -> None:
        return


class Lab:
    """A workspace, and the few things the runner does that tracking looks at."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def client(self) -> Any:
        from mlflow.tracking import MlflowClient

        return MlflowClient(tracking_uri=backend(str(self.root)).uri)

    def runs(self, experiment: str = "pairmill") -> dict[str, Any]:
        known = self.client.get_experiment_by_name(experiment)
        runs = self.client.search_runs([known.experiment_id], order_by=["start_time ASC"]) if known else []
        return {run.info.run_name: run for run in runs}

    def steps(self, run: Any, key: str) -> list[tuple[int, float]]:
        return [(m.step, m.value) for m in self.client.get_metric_history(run.info.run_id, key)]

    def tracker(self, close_seconds: float = 60.0) -> Tracker:
        """With `close_seconds=0` the delivery process is ended before it did anything; `deliver` then does it here."""
        tracker = Tracker(TrackingConfig(flush_seconds=0.2, close_seconds=close_seconds), str(self.root))
        config = {
            "model": {"name": "toy"},
            "sources": {"ward": {"kind": "medical", "private": True, "paths": [SECRET]}},
        }
        tracker.start(f"run all sources.ward.paths={SECRET}", {"model": "toy"}, config)
        return tracker

    def folder(self, name: str) -> Path:
        return self.root / "artifacts" / name

    def metrics_file(self, name: str) -> Path:
        return self.root / "scratch" / name / "metrics.jsonl"

    def start(self, tracker: Tracker, name: str, node: str = "pretrain[toy]", **config: Any) -> None:
        inputs = {"shards": [str(self.folder("shards"))]}
        tracker.node_started(node, Train, self.folder(name), {"lr": 0.1, **config}, inputs, self.metrics_file(name))

    def log(self, name: str, steps: range) -> str:
        """Append steps to a stage's metrics file; returns all of it, which training keeps as `history.jsonl`."""
        path = self.metrics_file(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a") as file:
            for step in steps:
                values = {"loss": 1 / step, "lr": 0.1}
                file.write(json.dumps({"step": step, "time": time.time(), "metrics": values}) + "\n")
        return path.read_text()

    def seal(self, name: str, **files: str) -> Artifact:
        """What the runner does at the end of a stage: files in place, manifest written, scratch removed."""
        for path, text in files.items():
            target = self.folder(name) / path.replace("__", "/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
        names = [p.relative_to(self.folder(name)).as_posix() for p in self.folder(name).rglob("*") if p.is_file()]
        manifest = {"stage": "pretrain", "fingerprint": f"{name:0<64}", "counts": {"rows": 7}}
        artifact = ArtifactDir(str(self.folder(name))).seal({**manifest, "files": [{"name": n} for n in names]}, {})
        shutil.rmtree(self.root / "scratch" / name, ignore_errors=True)
        return artifact

    def deliver(self) -> list[str]:
        """What the delivery process does, without starting one; returns its notices."""
        notices: list[str] = []
        assert main(self.root, 0.2, None, notices.append) == 0
        return notices

    def texts(self) -> bytes:
        """Every byte of the store: database and files."""
        return b"".join(path.read_bytes() for path in (self.root / "mlflow").rglob("*") if path.is_file())
