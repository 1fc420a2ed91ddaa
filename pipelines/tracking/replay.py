"""Events of one invocation -> MLflow runs. Every step may be repeated: what is in the store already is not added."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from pipelines.tracking.backend import Backend
from pipelines.tracking.history import HistoryTail, Point, Watermarks, read_points
from pipelines.tracking.params import entity_key
from stages.base.artifact import Artifact, is_remote

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

log = logging.getLogger(__name__)

#: Tag that names a run across stores, restarts and replays: the invocation, or the key beside the artifact.
KEY_TAG = "pairmill.key"

#: Limits of mlflow.utils.validation per request (metrics; params and tags), and of a dataset's digest.
_METRICS, _PARAMS, _DIGEST = 1000, 100, 36


class Unavailable(Exception):
    """The store cannot be reached or is failing: try again later. One line."""


@contextlib.contextmanager
def _reaching(what: str, refused: Callable[[str], None]) -> Iterator[None]:
    """Sort MLflow's errors: a store that is down stops delivery; a request it will never take is noted and left out."""
    from mlflow.exceptions import MlflowException
    from requests.exceptions import RequestException

    try:
        yield
    except MlflowException as error:
        line = str(error).strip().splitlines()[0][:200]
        code = error.get_http_status_code()
        if code >= 500 or code in (401, 403, 408, 429):
            raise Unavailable(line) from error
        log.exception("%s", what)
        refused(f"MLflow refused {what}: {line}")
    except RequestException as error:
        raise Unavailable(type(error).__name__) from error
    except FileNotFoundError as error:
        refused(f"{what} could not be read for MLflow: {error}")


def open_client(store: Backend) -> MlflowClient:
    """Import MLflow and open the store (seconds). Raises Unavailable."""
    from mlflow.tracking import MlflowClient

    if store.database:
        store.database.parent.mkdir(parents=True, exist_ok=True)
    with _reaching("the connection", _unavailable):
        client = MlflowClient(tracking_uri=store.uri)
        client.get_experiment_by_name("pairmill")
    return client


def _unavailable(line: str) -> None:
    raise Unavailable(line)


@dataclass
class _Child:
    """The run of a stage at work."""

    run_id: str
    marks: Watermarks
    tail: HistoryTail | None
    private: bool


@dataclass
class Replay:
    """Applies an invocation's events in order. After an Unavailable, start a new one from the first event."""

    client: MlflowClient
    store: Backend
    closed: bool = False
    refused: list[str] = field(default_factory=list)
    """One line for each thing MLflow would not take."""
    _experiment: str = ""
    _parent: str = ""
    _time: int = 0
    _children: dict[str, _Child] = field(default_factory=dict)

    def apply(self, event: Mapping[str, Any]) -> None:
        """Deliver one event."""
        self._time = event["time"]
        what = " ".join([event["event"].replace("_", " "), event.get("node", "")]).strip()
        handler: Callable[[Mapping[str, Any]], None] = getattr(self, f"_on_{event['event']}")
        with _reaching(what, self.refused.append):
            handler(event)

    def flush(self) -> None:
        """Send what the stages at work have written to their metrics files since the last time."""
        for node, child in self._children.items():
            if child.tail:
                with _reaching(f"metrics of {node}", self.refused.append):
                    self._log_points(child, child.tail.new_points())

    def abandon(self) -> None:
        """The driver died without a word: end its run, and those of the stages it was at, as killed."""
        self.apply({"event": "close", "status": "KILLED", "time": self._time})

    def close(self) -> None:
        """Close open files."""
        for child in self._children.values():
            if child.tail:
                child.tail.close()

    # -- events --------------------------------------------------------------------------------------------------
    def _on_start(self, event: Mapping[str, Any]) -> None:
        self._experiment = self._find_experiment(event["experiment"])
        tags = {
            "mlflow.user": event["user"],
            "mlflow.source.name": f"pairmill {event['command']}",
            "mlflow.source.type": "LOCAL",
            "pairmill.command": event["command"],
            **{entity_key(name): value for name, value in event["tags"].items()},
        }
        run = self._run(event["key"], event["command"], event["time"], tags)
        self._parent = run.info.run_id
        self._log_params(run, event["params"])

    def _on_node_started(self, event: Mapping[str, Any]) -> None:
        tags = {
            "mlflow.parentRunId": self._parent,
            "mlflow.source.name": f"pairmill {event['stage']}",
            "mlflow.source.type": "LOCAL",
            "pairmill.stage": event["stage"],
            "pairmill.stage_version": str(event["version"]),
            "pairmill.node": event["node"],
        }
        run = self._run(event["key"], event["node"], event["time"], tags)
        tail = HistoryTail(Path(event["metrics_file"])) if event["metrics_file"] else None
        self._children[event["node"]] = _Child(run.info.run_id, self._marks(run), tail, event["private"])
        self._log_params(run, event["params"])
        self._log_inputs(run, event["inputs"])

    def _on_node_finished(self, event: Mapping[str, Any]) -> None:
        child = self._children.pop(event["node"], None)
        run = self.client.get_run(child.run_id) if child else self._lookup(event["key"])
        if run is None:
            return
        run_id = run.info.run_id
        child = child or _Child(run_id, self._marks(run), None, False)
        artifact = Artifact(event["artifact"])
        points = child.tail.new_points() if child.tail else []
        if event["history"]:
            # The whole history, whatever became of the scratch folder in the meantime.
            with artifact.open(event["history"]) as file:
                points += read_points(file.read())
        self._log_points(child, points)
        summary = [Point(entity_key(f"summary/{k}"), v, event["time"], 0) for k, v in event["summary"].items()]
        self._log_points(child, summary)
        if child.tail:
            child.tail.close()
        self.client.set_tag(run_id, "pairmill.fingerprint", event["fingerprint"])
        self.client.set_tag(run_id, "pairmill.artifact", event["artifact"])
        self._log_files(run_id, event["node"], artifact, event["files"])
        if event["model"]:
            with _reaching(f"the model {event['model']}", self.refused.append):
                self._register(event["model"], artifact, run)
        self.client.set_terminated(run_id, "FINISHED", event["time"])

    def _on_node_reused(self, event: Mapping[str, Any]) -> None:
        run = self._lookup(event["key"]) if event["key"] else None
        made_by = run.info.run_id if run else f"{event['fingerprint'][:12]} (made where this store was not in use)"
        self.client.set_tag(self._parent, entity_key(f"pairmill.reused.{event['node']}"), made_by)

    def _on_node_rewritten(self, event: Mapping[str, Any]) -> None:
        run = self._lookup(event["key"])
        if run is not None:
            self._log_files(run.info.run_id, event["node"], Artifact(event["artifact"]), event["files"])

    def _on_model_forgot(self, event: Mapping[str, Any]) -> None:
        """Mark the run of a model, and its registered version, as having seen what was forgotten since."""
        run = self._lookup(event["key"])
        if run is None:
            return
        tags = {"pairmill.forgotten": str(event["samples"]), "pairmill.forgotten_on": event["date"]}
        for tag, value in tags.items():
            self.client.set_tag(run.info.run_id, tag, value)
        for version in self.client.search_model_versions(f"run_id = '{run.info.run_id}'"):
            for tag, value in tags.items():
                self.client.set_model_version_tag(version.name, version.version, tag, value)

    def _on_node_failed(self, event: Mapping[str, Any]) -> None:
        child = self._children.pop(event["node"], None)
        if child is None:
            return
        if child.tail:
            self._log_points(child, child.tail.new_points())
            child.tail.close()
        error = "withheld: the node works on a private source" if child.private else event["error"]
        self.client.set_tag(child.run_id, "pairmill.error", error[:5000])
        self.client.set_terminated(child.run_id, "FAILED", event["time"])

    def _on_final_scores(self, event: Mapping[str, Any]) -> None:
        parent = _Child(self._parent, self._marks(self.client.get_run(self._parent)), None, False)
        points = [Point(entity_key(key), value, event["time"], 0) for key, value in event["scores"].items()]
        self._log_points(parent, points)

    def _on_close(self, event: Mapping[str, Any]) -> None:
        self.flush()
        for child in self._children.values():
            self.client.set_terminated(child.run_id, "KILLED", event["time"])
        if self._parent:
            self.client.set_terminated(self._parent, event["status"], event["time"])
        self.closed = True

    # -- what they are made of -----------------------------------------------------------------------------------
    def _find_experiment(self, name: str) -> str:
        from mlflow.exceptions import MlflowException

        found = self.client.get_experiment_by_name(name)
        if found is None:
            try:
                return str(self.client.create_experiment(name, artifact_location=self.store.artifact_root))
            except MlflowException as error:
                # Another delivery made it in between.
                found = self.client.get_experiment_by_name(name)
                if found is None:
                    raise error
        if found.lifecycle_stage == "deleted":
            self.client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    def _lookup(self, key: str) -> Run | None:
        runs = self.client.search_runs([self._experiment], f"tags.`{KEY_TAG}` = '{key}'", max_results=1)
        return runs[0] if runs else None

    def _run(self, key: str, name: str, start: int, tags: Mapping[str, str]) -> Run:
        """The run of that key: made now, or taken up again with these tags."""
        run = self._lookup(key)
        if run is None:
            return self.client.create_run(self._experiment, start, {KEY_TAG: key, **tags}, name)
        for tag, value in tags.items():
            if run.data.tags.get(tag) != value:
                self.client.set_tag(run.info.run_id, tag, value)
        if run.info.status != "RUNNING":
            self.client.update_run(run.info.run_id, status="RUNNING")
        return run

    def _marks(self, run: Run) -> Watermarks:
        history = functools.partial(self.client.get_metric_history, run.info.run_id)
        return Watermarks({key: max(metric.step for metric in history(key)) for key in run.data.metrics})

    def _log_points(self, child: _Child, points: Sequence[Point]) -> None:
        from mlflow.entities import Metric

        fresh = child.marks.fresh(list(points))
        for start in range(0, len(fresh), _METRICS):
            batch = fresh[start : start + _METRICS]
            self.client.log_batch(child.run_id, [Metric(p.key, p.value, p.time, p.step) for p in batch])
            child.marks.delivered(batch)

    def _log_params(self, run: Run, params: Mapping[str, str]) -> None:
        from mlflow.entities import Param

        # A resumed stage may be made otherwise (more workers) than it began; MLflow's params are written once.
        new = [Param(key, value) for key, value in params.items() if key not in run.data.params]
        for start in range(0, len(new), _PARAMS):
            self.client.log_batch(run.info.run_id, params=new[start : start + _PARAMS])

    def _log_files(self, run_id: str, node: str, artifact: Artifact, names: Sequence[str]) -> None:
        """Copy files into a run; JSON files under `tables/` are shown as tables, as if by `mlflow.log_table`."""
        for name in names:
            with _reaching(f"the file {name} of {node}", self.refused.append):
                folder = str(PurePosixPath(name).parent)
                self.client.log_artifact(run_id, str(artifact.path(name)), None if folder == "." else folder)
        listed = [{"path": name, "type": "table"} for name in names if name.startswith("tables/")]
        if listed:
            self.client.set_tag(run_id, "mlflow.loggedArtifacts", json.dumps(listed))

    def _log_inputs(self, run: Run, inputs: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag
        from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

        known = {(i.dataset.name, i.dataset.digest) for i in run.inputs.dataset_inputs} if run.inputs else set()
        datasets = []
        for role, artifacts in inputs.items():
            for item in artifacts:
                if (item["name"], item["fingerprint"][:_DIGEST]) in known:
                    continue
                dataset = Dataset(
                    name=item["name"],
                    digest=item["fingerprint"][:_DIGEST],
                    source_type="local",
                    source=json.dumps({"uri": item["url"]}),
                    profile=json.dumps(item["counts"]),
                )
                datasets.append(DatasetInput(dataset, [InputTag(MLFLOW_DATASET_CONTEXT, role)]))
        if datasets:
            self.client.log_inputs(run.info.run_id, datasets)

    def _register(self, name: str, artifact: Artifact, run: Run) -> None:
        """A version of the registered model that points at the artifact; no weights are copied."""
        from mlflow.exceptions import MlflowException

        run_id = run.info.run_id
        if any(version.name == name for version in self.client.search_model_versions(f"run_id = '{run_id}'")):
            return
        source = f"{artifact.url}/model"
        tags = {"pairmill.model": source, "pairmill.fingerprint": artifact.fingerprint}
        if self.store.is_server and not is_remote(artifact.url):
            # A server takes no path of somebody's machine as a source, so the source is a file that names it.
            self.client.log_dict(run_id, tags, "model/pairmill.json")
            source = f"{run.info.artifact_uri}/model"
        try:
            self.client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        self.client.create_model_version(name, source, run_id, tags=tags, await_creation_for=0)
