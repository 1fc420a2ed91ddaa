"""Kills, an unreachable MLflow and deliveries of an earlier version: every event arrives, and arrives once."""

from __future__ import annotations

import contextlib
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

from pipelines.tracking.client import TrackingClient
from pipelines.tracking.config import backend
from pipelines.tracking.deliver import UNDELIVERED, deliver_pending, main
from pipelines.tracking.replay import Replay
from pipelines.tracking.spool import read_events, spool_path
from tests.pipelines.tracking.lab import Lab

DRIVER = """
import sys, time
sys.path[:0] = [{root!r}]
from pathlib import Path
from tests.pipelines.tracking.lab import Lab
lab = Lab(Path({workspace!r}))
tracker = lab.tracker()
lab.start(tracker, "a")
lab.log("a", range(1, 8))
print("logged", flush=True)
time.sleep(120)
"""


def _killed_driver(lab: Lab, after: Callable[[], bool]) -> None:
    root = Path(__file__).resolve().parents[3]
    code = DRIVER.format(root=str(root), workspace=str(lab.root))
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
