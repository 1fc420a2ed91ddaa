"""What the real MLflow on SQLite holds of an invocation: runs, their children, their metrics, and nothing private."""

from __future__ import annotations

import json

from pipelines.tracking.deliver import deliver_pending
from tests.pipelines.tracking.lab import SECRET, Lab


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
