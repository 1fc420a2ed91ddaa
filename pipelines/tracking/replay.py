"""Replays the events of one invocation, as the driver appended them, as MLflow runs: one parent, a child per stage."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.tracking.client import TrackingClient, sort_errors
from pipelines.tracking.metrics_file import LoggedSteps, MetricsTail, Point, parse
from pipelines.tracking.params import entity_key
from stages.base.artifact import Artifact

if TYPE_CHECKING:
    from mlflow.entities import Run

Event = Mapping[str, Any]


@dataclass
class _Run:
    """The MLflow run of a stage, or of the whole invocation."""

    entity: Run
    logged: LoggedSteps | None = None
    """Fetched from the store before the first points are logged."""
    tail: MetricsTail | None = None
    """Its metrics file, while it runs."""
    private: bool = False

    def new_points(self) -> list[Point]:
        """What the stage has logged since the last call."""
        return self.tail.new_points() if self.tail else []

    def close(self) -> None:
        """Close the metrics file."""
        if self.tail:
            self.tail.close()


class Replay:
    """Applies events in order. After an Unavailable, start a new one from the first event."""

    def __init__(self, client: TrackingClient) -> None:
        self.ended = False
        """Whether the last event has been applied."""
        self.refused: list[str] = []
        """One line for each thing that MLflow did not accept."""
        self._client = client
        self._experiment = ""
        self._parent: _Run | None = None
        self._time = 0
        self._running: dict[str, _Run] = {}

    def apply(self, event: Event) -> None:
        """Deliver one event. Raises Unavailable."""
        self._time = event["time"]
        handler: Callable[[Event], None] = getattr(self, f"_on_{event['event']}")
        with self._sort_errors(f"{event['event'].replace('_', ' ')} {event.get('node', '')}".strip()):
            handler(event)

    def flush(self) -> None:
        """Send what the running stages have appended to their metrics files. Raises Unavailable."""
        for node, run in self._running.items():
            with self._sort_errors(f"metrics of {node}"):
                self._log_points(run, run.new_points())

    def abandon(self) -> None:
        """The driver was killed: end its run, and those of its running stages, as killed. Raises Unavailable."""
        self.apply({"event": "close", "status": "KILLED", "time": self._time})

    def close(self) -> None:
        """Close open files."""
        for run in self._running.values():
            run.close()

    # -- one method per event (see `tracker.py`) -----------------------------------------------------------------
    def _on_start(self, event: Event) -> None:
        self._experiment = self._client.experiment(event["experiment"])
        tags = {
            "mlflow.user": event["user"],
            "mlflow.source.name": f"pairmill {event['command']}",
            "mlflow.source.type": "LOCAL",
            "pairmill.command": event["command"],
            **{entity_key(name): value for name, value in event["tags"].items()},
        }
        self._parent = self._start_run(event, event["command"], tags)

    def _on_node_started(self, event: Event) -> None:
        tags = {
            "mlflow.source.name": f"pairmill {event['stage']}",
            "mlflow.source.type": "LOCAL",
            "pairmill.stage": event["stage"],
            "pairmill.stage_version": str(event["version"]),
            "pairmill.node": event["node"],
        }
        if self._parent is not None:
            tags["mlflow.parentRunId"] = self._parent.entity.info.run_id
        run = self._running[event["node"]] = self._start_run(event, event["node"], tags)
        run.tail = MetricsTail(Path(event["metrics_file"])) if event["metrics_file"] else None
        run.private = event["private"]
        self._client.log_inputs(run.entity, event["inputs"])

    def _on_node_finished(self, event: Event) -> None:
        run = self._running.pop(event["node"], None) or self._find_run(event["key"])
        if run is None:
            return
        artifact = Artifact(event["artifact"])
        points = run.new_points()
        run.close()
        if event["history"]:
            # All of its metrics, whatever has happened to the scratch folder in the meantime.
            with artifact.open(event["history"]) as file:
                points += parse(file.read())
        points += _points("summary/", event["summary"], event["time"])
        self._log_points(run, points)
        tags = {"pairmill.fingerprint": event["fingerprint"], "pairmill.artifact": event["artifact"]}
        self._client.log(run.entity, tags=tags)
        self._log_files(run, event)
        if event["model"]:
            with self._sort_errors(f"the model {event['model']}"):
                self._client.register_model(run.entity, event["model"], artifact)
        self._client.end_run(run.entity, "FINISHED", event["time"])

    def _on_node_failed(self, event: Event) -> None:
        run = self._running.pop(event["node"], None)
        if run is None:
            return
        self._log_points(run, run.new_points())
        run.close()
        error = "withheld: the node works on a private source" if run.private else event["error"]
        self._client.log(run.entity, tags={"pairmill.error": error[:5000]})
        self._client.end_run(run.entity, "FAILED", event["time"])

    def _on_node_reused(self, event: Event) -> None:
        run = self._find_run(event["key"]) if event["key"] else None
        run_id = (
            run.entity.info.run_id if run else f"{event['fingerprint'][:12]} (made where this store was not in use)"
        )
        if self._parent is not None:
            self._client.log(self._parent.entity, tags={entity_key(f"pairmill.reused.{event['node']}"): run_id})

    def _on_node_rewritten(self, event: Event) -> None:
        run = self._find_run(event["key"])
        if run is not None:
            self._log_files(run, event)

    def _on_model_forgot(self, event: Event) -> None:
        """Mark the run of a model, and its registered version, as trained on samples that were forgotten since."""
        run = self._find_run(event["key"])
        if run is not None:
            tags = {"pairmill.forgotten": str(event["samples"]), "pairmill.forgotten_on": event["date"]}
            self._client.log(run.entity, tags=tags)
            self._client.tag_models(run.entity, tags)

    def _on_final_scores(self, event: Event) -> None:
        if self._parent is not None:
            self._log_points(self._parent, _points("", event["scores"], event["time"]))

    def _on_close(self, event: Event) -> None:
        self.flush()
        for run in self._running.values():
            self._client.end_run(run.entity, "KILLED", event["time"])
        if self._parent is not None:
            self._client.end_run(self._parent.entity, event["status"], event["time"])
        self.ended = True

    # -- what they share -----------------------------------------------------------------------------------------
    def _sort_errors(self, action: str) -> AbstractContextManager[None]:
        return sort_errors(action, self.refused.append)

    def _start_run(self, event: Event, name: str, tags: Mapping[str, str]) -> _Run:
        return _Run(self._client.start_run(self._experiment, event["key"], name, event["time"], event["params"], tags))

    def _find_run(self, key: str) -> _Run | None:
        """The run of an earlier invocation."""
        run = self._client.find_run(self._experiment, key)
        return _Run(run) if run else None

    def _log_points(self, run: _Run, points: Iterable[Point]) -> None:
        """Log the points that the store does not have: a resumed or replayed run logs each step once."""
        if run.logged is None:
            run.logged = self._client.logged_steps(run.entity)
        self._client.log(run.entity, run.logged.advance(points))

    def _log_files(self, run: _Run, event: Event) -> None:
        """Copy the event's files into a run; JSON files in `tables/` are shown as tables, as if by `log_table`."""
        for name in event["files"]:
            with self._sort_errors(f"the file {name} of {event['node']}"):
                self._client.log_file(run.entity, Artifact(event["artifact"]), name)
        tables = [{"path": name, "type": "table"} for name in event["files"] if name.startswith("tables/")]
        if tables:
            self._client.log(run.entity, tags={"mlflow.loggedArtifacts": json.dumps(tables)})


def _points(prefix: str, figures: Mapping[str, float], time: int) -> list[Point]:
    return [Point(entity_key(f"{prefix}{name}"), value, time, 0) for name, value in figures.items()]
