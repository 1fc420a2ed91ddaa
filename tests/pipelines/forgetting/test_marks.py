"""MLflow hears through the spool which models saw what was forgotten, gets new reports, and shows figures as tables."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from pipelines.tracking.config import TrackingConfig, backend, environment
from pipelines.tracking.deliver import main
from pipelines.tracking.tracker import Tracker
from stages.base.artifact import Artifact
from stages.base.contract import Stage, StageConfig


class Train(Stage[StageConfig]):
    name = "pretrain"
    registers = True
    holds_samples = False

    def partitions(self, inputs: Any) -> Any:
        return []

    def run(self, partition: Any, context: Any) -> None:
        return


class Pick(Train):
    name = "select"
    registers = False
    tracked = ("report.html", "tables/*.json")


@pytest.fixture
def store(mill: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    return lambda: backend(str(mill.root))


def tracked(mill: Any) -> Tracker:
    """An invocation whose events stay in the spool until `deliver`."""
    tracker = Tracker(TrackingConfig(close_seconds=0), str(mill.root))
    tracker._deliver = lambda: None  # type: ignore[method-assign]
    tracker.start("run all", {}, {})
    return tracker


def deliver(mill: Any) -> None:
    said: list[str] = []
    assert main(mill.root, 0.2, None, said.append) == 0
    assert said == []


@pytest.mark.slow
def test_models_and_reports_in_mlflow_follow_what_was_forgotten(
    mill: Any, store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.tracking import MlflowClient

    shards, select = mill.of("shard"), mill.of("select")
    model = mill.train("pretrain[toy]", "a" * 64, {"shards": [shards.fingerprint]})
    first = tracked(mill)
    first.node_started("select", Pick, select.url, {}, {})
    first.node_finished("select", select)
    first.node_started("pretrain[toy]", Train, model.url, {}, {"shards": [shards.url]})
    first.node_finished("pretrain[toy]", model)
    first.close()
    time.sleep(1.1)  # invocations are delivered in the order of their seconds
    verdicts = mill.verdicts()
    row = next(r for r in mill.pairs("demo_coco") if verdicts[r["uid"]]["keep"])
    (tmp_path / "list").write_text(row["image_uid"])
    # Nothing has reached MLflow yet: losing it until now loses nothing.
    line = [word for word in mill.settings if not word.startswith("tracking")]
    mill.settings = (*line, "tracking.close_seconds=0")
    done = mill.command("forget", str(tmp_path / "list"))
    assert done.returncode == 0, done.stderr
    deliver(mill)

    client = MlflowClient(tracking_uri=store().uri)
    experiment = client.get_experiment_by_name("pairmill")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    seen = str(Artifact(shards.url).manifest["forgotten"])
    assert runs["pretrain[toy]"].data.tags["pairmill.forgotten"] == seen
    assert runs["pretrain[toy]"].data.tags["pairmill.forgotten_on"].startswith("20")
    (version,) = client.search_model_versions(f"run_id = '{runs['pretrain[toy]'].info.run_id}'")
    assert version.tags["pairmill.forgotten"] == seen
    key = json.loads((Path(model.url) / "_tracking.json").read_text())["key"]
    assert store().run_ids([key, "none"]) == {key: runs["pretrain[toy]"].info.run_id}
    assert "forget" in runs

    page = Path(client.download_artifacts(runs["select"].info.run_id, "report.html", str(tmp_path))).read_text()
    assert page == Path(select.url, "report.html").read_text()
    tables = json.loads(runs["select"].data.tags["mlflow.loggedArtifacts"])
    assert {"path": "tables/sources.json", "type": "table"} in tables
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store().uri)  # for what the client asks of MLflow's fluent half
    table = client.load_table(experiment.experiment_id, "tables/sources.json", [runs["select"].info.run_id])
    assert list(table["source"]) == ["demo_cc3m", "demo_coco", "demo_medical"]
