"""Tracking against the real MLflow on SQLite: what arrives, that it arrives once, and that nothing is ever lost."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.store import ArtifactDir
from pipelines.tracking.client import TrackingClient
from pipelines.tracking.config import TrackingConfig, backend, environment
from pipelines.tracking.deliver import UNDELIVERED, deliver_pending, main
from pipelines.tracking.replay import Replay
from pipelines.tracking.spool import read_events, spool_path
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


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow makes a new SQLite store in some seconds: once for all tests."""
    from mlflow.tracking import MlflowClient

    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(tracking_uri=f"sqlite:///{path}").get_experiment_by_name("none")
    return path


@pytest.fixture
def lab(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    lab = Lab(tmp_path / "workspace")
    (lab.root / "mlflow").mkdir(parents=True)
    shutil.copy(empty_store, lab.root / "mlflow" / "mlflow.db")
    lab.seal("shards")
    return lab


def test_an_invocation_becomes_a_parent_run_with_a_child_per_stage_that_ran(lab: Lab) -> None:
    old = lab.seal("old")
    tracker = lab.tracker()
    tracker.node_reused("select", old)
    lab.start(tracker, "a", zero={"stage": 3})
    history = lab.log("a", range(1, 4))
    files = {"report.html": "<p>", "samples__one.txt": "a cat", "other.bin": "x", "model__config.json": "{}"}
    artifact = lab.seal("a", **{**files, "history.jsonl": history})
    tracker.node_finished("pretrain[toy]", artifact, {"kept": 5.0})
    tracker.final_scores({"vqa/accuracy": 0.9})
    tracker.close("FINISHED")

    runs = lab.runs()
    child, parent = runs.pop("pretrain[toy]"), runs.popitem()[1]
    assert not runs
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert (parent.info.status, child.info.status) == ("FINISHED", "FINISHED")
    assert (parent.data.tags["model"], parent.data.params["model.name"]) == ("toy", "toy")
    assert parent.data.metrics == {"vqa/accuracy": 0.9}
    assert parent.data.tags["pairmill.reused.select"].startswith("old")
    assert child.data.params == {"lr": "0.1", "zero.stage": "3"}
    assert lab.steps(child, "loss") == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    assert child.data.metrics["summary/kept"] == 5
    assert child.data.tags["pairmill.fingerprint"] == artifact.fingerprint
    (dataset,) = child.inputs.dataset_inputs
    assert (dataset.dataset.name, dataset.dataset.digest) == ("pretrain", f"{'shards':0<36}")
    assert json.loads(dataset.dataset.source)["uri"] == str(lab.folder("shards"))
    assert [tag.value for tag in dataset.tags] == ["shards"]
    copied = [
        item.path for folder in (None, "samples") for item in lab.client.list_artifacts(child.info.run_id, folder)
    ]
    assert copied == ["report.html", "samples", "samples/one.txt"]
    (version,) = lab.client.search_model_versions("name = 'pairmill-toy'")
    assert (version.source, version.run_id) == (f"{artifact.url}/model", child.info.run_id)
    assert not list((lab.root / "mlflow").rglob("config.json"))
    assert not list((lab.root / "tracking").glob("*.jsonl"))

    again = lab.tracker()
    again.node_reused("pretrain[toy]", artifact)
    again.close()
    assert deliver_pending(str(lab.root))
    parents = [run for run in lab.runs().values() if "pairmill.reused.pretrain_toy_" in run.data.tags]
    assert [run.data.tags["pairmill.reused.pretrain_toy_"] for run in parents] == [child.info.run_id]


DRIVER = """
import sys, time
sys.path[:0] = [{tests!r}, {root!r}]
from pathlib import Path
from test_tracking_mlflow import Lab
lab = Lab(Path({workspace!r}))
tracker = lab.tracker()
lab.start(tracker, "a")
lab.log("a", range(1, 8))
print("logged", flush=True)
time.sleep(120)
"""


def _killed_driver(lab: Lab, after: Callable[[], bool]) -> None:
    root = Path(__file__).resolve().parents[2]
    code = DRIVER.format(tests=str(Path(__file__).parent), root=str(root), workspace=str(lab.root))
    driver = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert driver.stdout is not None
        assert driver.stdout.readline() == "logged\n"
        deadline = time.monotonic() + 60
        while not after() and time.monotonic() < deadline:
            time.sleep(0.1)
    finally:
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()


def test_after_kill_9_the_same_run_goes_on_and_every_step_is_logged_once(lab: Lab) -> None:
    def seven_steps_have_arrived() -> bool:
        child = lab.runs().get("pretrain[toy]")
        return child is not None and len(lab.steps(child, "loss")) == 7

    _killed_driver(lab, after=seven_steps_have_arrived)
    assert seven_steps_have_arrived()
    tracker = lab.tracker()
    lab.start(tracker, "a")
    history = lab.log("a", range(5, 11))  # the checkpoint was of step 4
    artifact = lab.seal("a", **{"history.jsonl": history})
    tracker.node_finished("pretrain[toy]", artifact)
    tracker.close()

    runs = lab.client.search_runs([lab.client.get_experiment_by_name("pairmill").experiment_id])
    (child,) = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    assert lab.steps(child, "loss") == [(i, 1 / i) for i in range(1, 11)]
    assert child.info.status == "FINISHED"
    parents = {run.info.run_id: run.info.status for run in runs if run is not child}
    assert sorted(parents.values()) == ["FINISHED", "KILLED"]
    assert parents[child.data.tags["mlflow.parentRunId"]] == "FINISHED"
    assert not list((lab.root / "tracking").glob("*.jsonl"))


def test_while_mlflow_is_down_the_run_goes_on_and_is_delivered_later(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    began = time.monotonic()
    with caplog.at_level(logging.WARNING):
        tracker = lab.tracker()
        lab.start(tracker, "a")
        assert time.monotonic() - began < 1, "the tracker must not wait for MLflow"
        history = lab.log("a", range(1, 4))
        tracker.node_finished("pretrain[toy]", lab.seal("a", **{"history.jsonl": history}))
        tracker.close()
    assert len(caplog.messages) == 1
    assert "not available" in caplog.text
    assert len(list((lab.root / "tracking").glob("*.jsonl"))) == 1

    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert deliver_pending(str(lab.root))
    child = lab.runs()["pretrain[toy]"]
    # The scratch folder was removed; the artifact has the metrics.
    assert [step for step, _ in lab.steps(child, "loss")] == [1, 2, 3]
    assert child.info.status == "FINISHED"


def test_with_mlflows_asynchronous_logging_switched_on_a_failing_store_still_loses_nothing(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow's queue drops what a store does not take, without an error: delivery must not go through it."""
    monkeypatch.setenv("MLFLOW_ENABLE_ASYNC_LOGGING", "true")
    tracker = lab.tracker(close_seconds=0)
    lab.start(tracker, "a")
    history = lab.log("a", range(1, 4))
    tracker.node_finished("pretrain[toy]", lab.seal("a", **{"history.jsonl": history}))
    tracker.close()

    with contextlib.closing(sqlite3.connect(lab.root / "mlflow" / "mlflow.db")) as database:
        database.execute("ALTER TABLE metrics RENAME COLUMN value TO missing")
        assert main(lab.root, 0.2, None, lambda _: None) == UNDELIVERED
        database.execute("ALTER TABLE metrics RENAME COLUMN missing TO value")
    lab.deliver()
    assert [step for step, _ in lab.steps(lab.runs()["pretrain[toy]"], "loss")] == [1, 2, 3]


def test_a_driver_killed_between_sealing_and_its_event_is_made_up_for(lab: Lab) -> None:
    tracker = lab.tracker(close_seconds=0)
    lab.start(tracker, "a")
    history = lab.log("a", range(1, 3))
    artifact = lab.seal("a", **{"history.jsonl": history, "report.html": "<p>"})
    tracker.close("KILLED")
    lab.deliver()
    assert lab.runs()["pretrain[toy]"].info.status == "KILLED"

    tracker = lab.tracker(close_seconds=0)
    tracker.node_reused("pretrain[toy]", artifact)
    tracker.close()
    lab.deliver()
    child = lab.runs()["pretrain[toy]"]
    assert child.info.status == "FINISHED"
    assert [step for step, _ in lab.steps(child, "loss")] == [1, 2]
    assert [item.path for item in lab.client.list_artifacts(child.info.run_id)] == ["report.html"]
    assert len(lab.client.search_model_versions("name = 'pairmill-toy'")) == 1


def test_more_points_and_params_than_one_request_takes_all_arrive(lab: Lab) -> None:
    tracker = lab.tracker(close_seconds=0)
    lab.start(tracker, "a", **{f"key{number}": number for number in range(250)})
    history = lab.log("a", range(1, 1400))
    tracker.node_finished("pretrain[toy]", lab.seal("a", **{"history.jsonl": history}))
    tracker.close()
    assert lab.deliver() == []
    child = lab.runs()["pretrain[toy]"]
    assert [step for step, _ in lab.steps(child, "loss")] == list(range(1, 1400))
    assert len(child.data.params) == 251


#: What the version before `pipelines/tracking/client.py` wrote (a driver that was killed while it trained).
EARLIER_SPOOL = """\
{"event": "start", "time": 1795840000000, "key": "20261128T040000-0f0f0f0f", "experiment": "pairmill", "command": \
"run all", "user": "ann", "tags": {"target": "all", "model": "toy"}, "params": {"model.name": "toy"}}
{"event": "node_reused", "time": 1795840000100, "node": "select", "key": null, "fingerprint": "abcdefabcdefabcdef"}
{"event": "node_started", "time": 1795840001000, "node": "pretrain[toy]", "key": "5e5e", "stage": "pretrain", \
"version": 3, "private": false, "params": {"lr": "0.1"}, "inputs": {"shards": [{"name": "shard", "fingerprint": \
"1234", "url": "/data/shard", "counts": {"pairs": 9}}]}, "metrics_file": "METRICS"}
{"event": "final_scores", "time": 1795840002000, "scores": {"vqa/accuracy": 0.25}}
{"event": "cl"""


def test_a_spool_left_by_an_earlier_version_is_delivered(lab: Lab) -> None:
    lab.log("a", range(1, 4))
    spool = spool_path(lab.root, "20261128T040000-0f0f0f0f")
    spool.parent.mkdir()
    spool.write_text(EARLIER_SPOOL.replace("METRICS", str(lab.metrics_file("a"))))
    assert lab.deliver() == []
    runs = lab.runs()
    parent, child = runs["run all"], runs["pretrain[toy]"]
    assert (parent.info.status, child.info.status) == ("KILLED", "KILLED")
    assert parent.data.metrics == {"vqa/accuracy": 0.25}
    assert parent.data.tags["pairmill.reused.select"].startswith("abcdefabcdef ")
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert child.data.params == {"lr": "0.1"}
    assert [step for step, _ in lab.steps(child, "loss")] == [1, 2, 3]
    assert [item.dataset.name for item in child.inputs.dataset_inputs] == ["shard"]
    assert not spool.exists()


def test_nothing_of_a_private_source_reaches_the_store(lab: Lab) -> None:
    tracker = lab.tracker(close_seconds=0)
    source = {"kind": "medical", "private": True, "paths": [SECRET]}
    lab.start(tracker, "a", node="download[ward]", source=source)
    tracker.node_finished("download[ward]", lab.seal("a", **{"report.html": SECRET}))
    # Its config does not name the source; its node id does.
    lab.start(tracker, "b", node="signals[ward]")
    tracker.node_failed("signals[ward]", f"ValueError: {SECRET} is no image")
    tracker.close("FAILED")
    lab.deliver()
    runs = lab.runs()
    assert runs["download[ward]"].data.params["source.kind"] == "medical"
    assert runs["download[ward]"].data.metrics == {"summary/rows": 7}
    assert runs["signals[ward]"].info.status == "FAILED"
    assert SECRET.encode() not in lab.texts()
    assert b"medical" in lab.texts()


def test_what_mlflow_refuses_is_reported_and_the_rest_is_delivered(lab: Lab) -> None:
    tracker = lab.tracker(close_seconds=0)
    lab.start(tracker, "a")
    artifact = lab.seal("a", **{"report.html": "<p>"})
    (lab.folder("a") / "report.html").unlink()
    tracker.node_finished("pretrain[toy]", artifact)
    tracker.node_failed("never[started]", "x")
    tracker.close("FAILED")
    notices = lab.deliver()
    assert ["report.html" in line for line in notices] == [True]
    runs = lab.runs()
    assert runs["pretrain[toy]"].info.status == "FINISHED"
    assert len(lab.client.search_model_versions("name = 'pairmill-toy'")) == 1
    assert not list((lab.root / "tracking").glob("*.jsonl"))


def test_events_delivered_twice_leave_the_store_as_delivered_once(lab: Lab) -> None:
    tracker = lab.tracker(close_seconds=0)
    tracker.final_scores({"accuracy": 0.5})
    lab.start(tracker, "a", zero={"stage": 1})
    history = lab.log("a", range(1, 6))
    spool = next((lab.root / "tracking").glob("*.jsonl"))
    artifact = lab.seal("a", **{"history.jsonl": history, "report.html": "<p>"})
    tracker.node_finished("pretrain[toy]", artifact)
    copy = lab.root / "copy.jsonl"
    shutil.copy(spool, copy)
    tracker.close()
    lab.deliver()

    def picture() -> dict[str, Any]:
        runs = {name: run.to_dictionary() for name, run in lab.runs().items()}
        history = {name: lab.steps(run, "loss") for name, run in lab.runs().items()}
        versions = [version.version for version in lab.client.search_model_versions()]
        return {"runs": runs, "history": history, "versions": versions}

    before = picture()
    replay = Replay(TrackingClient(backend(str(lab.root))))
    for event in read_events(copy)[0]:
        replay.apply(event)
    assert replay.refused == []
    replay.apply({"event": "close", "status": "FINISHED", "time": 0})
    after = picture()
    assert after["history"] == before["history"]
    assert after["versions"] == before["versions"] == [1]
    for name, run in before["runs"].items():
        assert after["runs"][name]["data"] == run["data"]
        assert after["runs"][name]["inputs"] == run["inputs"]
