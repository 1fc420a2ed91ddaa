"""The driver's side of tracking: appends events to the spool. It never imports MLflow, waits for it or fails by it."""

from __future__ import annotations

import getpass
import json
import logging
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pipelines.store import ArtifactDir
from pipelines.tracking.config import TrackingConfig, home
from pipelines.tracking.deliver import Delivery
from pipelines.tracking.params import flatten, is_private, private_names, redact, redact_words
from pipelines.tracking.spool import Spool, spool_path
from stages.base.artifact import Artifact
from stages.base.contract import Stage

log = logging.getLogger(__name__)

#: Beside an artifact, finished or not: the key of its MLflow run, which is the same in every store.
TRACKING_RECORD = "_tracking.json"

Status = Literal["FINISHED", "FAILED", "KILLED"]


class Tracker:
    """Records one invocation: each method appends an event (`spool.py`), which another process delivers (`deliver.py`).

    The runner calls `start` once, `node_*` as nodes start and end (from any thread) and `close` at the end. The spool
    of a driver that is killed is delivered by the next invocation or by `pairmill ui`.
    """

    def __init__(self, config: TrackingConfig, workspace: str) -> None:
        self._config = config
        self._home = home(workspace)
        self._spool: Spool | None = None
        self._delivery: Delivery | None = None
        self._lock = threading.Lock()
        self._private: set[str] = set()
        self.invocation = ""
        """Identifies this invocation in `run.json` and in MLflow; empty if nothing is tracked."""

    def start(self, command: str, tags: Mapping[str, str], params: Mapping[str, Any]) -> None:
        """Open the invocation: its parent run is named after the command and carries `params` (a nested config)."""
        if not self._config.enabled:
            return
        # Sorts by start time: what an earlier invocation left is delivered first.
        self.invocation = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{uuid.uuid4().hex[:8]}"
        self._private = private_names(params)
        try:
            self._spool = Spool(spool_path(self._home, self.invocation))
        except OSError as error:
            self._give_up(error)
        self._append(
            "start",
            key=self.invocation,
            experiment=self._config.experiment,
            command=redact_words(command, self._private),
            user=_user(),
            tags={name: str(value) for name, value in tags.items()},
            params=flatten(redact(params)),
        )

    def node_started(
        self,
        node_id: str,
        stage: type[Stage[Any]] | Stage[Any],
        artifact_dir: str | Path,
        config: Mapping[str, Any],
        inputs: Mapping[str, Sequence[str]],
        metrics_file: Path | None = None,
    ) -> None:
        """A stage starts, or resumes after a kill, in which case its MLflow run is continued.

        `config` is the stage's own, complete; a source in it marked private is reduced to its name. If the node works
        on a private source (by its config, or by the source's name in its id), no file of it is uploaded and no error
        quoted. `inputs`: role -> urls of artifacts. `metrics_file` (see `metrics_file.py`) is read while it runs.
        """
        if self._spool is None:
            return
        hidden = is_private(config) or _instance(node_id) in self._private
        record = {
            "key": (_read_record(str(artifact_dir)) or {}).get("key") or uuid.uuid4().hex,
            "tracked": [] if hidden else list(stage.tracked),
            "registers": stage.registers,
            "finished": False,
        }
        self._write_record(str(artifact_dir), record)
        self._append(
            "node_started",
            node=node_id,
            key=record["key"],
            stage=stage.name,
            version=stage.version,
            private=hidden,
            params=flatten(redact(config)),
            inputs={role: [_dataset(Artifact(url)) for url in urls] for role, urls in inputs.items()},
            metrics_file=str(metrics_file) if metrics_file else None,
        )
        self._deliver()

    def node_finished(self, node_id: str, artifact: Artifact, summary: Mapping[str, float] | None = None) -> None:
        """A stage's artifact is sealed. `summary`: a few figures about it, by default its counts."""
        record = self._record(artifact)
        if record is None:
            return
        self._append(
            "node_finished",
            node=node_id,
            key=record["key"],
            artifact=artifact.url,
            fingerprint=artifact.fingerprint,
            summary=dict(artifact.counts if summary is None else summary),
            files=_tracked_files(record, artifact),
            history="history.jsonl" if artifact.names("history.jsonl") else None,
            model=model_name(node_id) if record["registers"] else None,
        )
        self._write_record(artifact.url, {**record, "finished": True})

    def node_reused(self, node_id: str, artifact: Artifact) -> None:
        """An artifact existed already: the parent run is tagged with the run that made it."""
        record = self._record(artifact)
        if record and not record["finished"]:
            # The driver was killed after it sealed the artifact and before it appended the event.
            self.node_finished(node_id, artifact)
        key = record["key"] if record else None
        self._append("node_reused", node=node_id, key=key, fingerprint=artifact.fingerprint)

    def node_failed(self, node_id: str, error: str) -> None:
        """A stage failed; `error` is one line, withheld if the node works on a private source."""
        self._append("node_failed", node=node_id, error=error)

    def node_rewritten(self, node_id: str, artifact: Artifact) -> None:
        """Files of a finished artifact changed because samples were forgotten: MLflow's copies are replaced."""
        if record := self._record(artifact):
            files = _tracked_files(record, artifact)
            self._append("node_rewritten", node=node_id, key=record["key"], artifact=artifact.url, files=files)
            self._deliver()

    def model_forgot(self, node_id: str, artifact: Artifact, samples: int, date: str) -> None:
        """A model was trained on samples that were forgotten since: `samples` in all, lastly on `date` (ISO 8601)."""
        if record := self._record(artifact):
            model = model_name(node_id) if record["registers"] else None
            self._append("model_forgot", node=node_id, key=record["key"], model=model, samples=samples, date=date)
            self._deliver()

    def final_scores(self, scores: Mapping[str, float]) -> None:
        """The scores of the invocation's benchmarks, as metrics of the parent run."""
        self._append("final_scores", scores=dict(scores))

    def close(self, status: Status = "FINISHED") -> None:
        """End the invocation; waits up to `close_seconds` until its events are delivered, then leaves them spooled.

        If no stage ran, no delivery was started: the events are left to the next one.
        """
        self._append("close", status=status)
        if self._spool is not None:
            self._spool.close()
            self._spool = None
        if self._delivery is not None and not self._delivery.finish(self._config.close_seconds):
            log.warning("MLflow has not received everything yet; the rest follows with the next run or `pairmill ui`")

    def _append(self, event: str, **fields: Any) -> None:
        with self._lock:
            if self._spool is None:
                return
            try:
                self._spool.append(event, **fields)
            except OSError as error:
                self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        log.warning("this run is not tracked: %s", error)
        self._spool = None

    def _record(self, artifact: Artifact) -> dict[str, Any] | None:
        """What `node_started` left beside an artifact; None if it could not, or if nothing is tracked."""
        return _read_record(artifact.url) if self._spool is not None else None

    def _write_record(self, url: str, record: Mapping[str, Any]) -> None:
        try:
            ArtifactDir(url).write(TRACKING_RECORD, json.dumps(record))
        except OSError as error:
            log.warning("%s: a restart would be tracked as a run of its own: %s", url, error)

    def _deliver(self) -> None:
        with self._lock:
            if self._spool is None or self._delivery is not None:
                return
            self._delivery = Delivery(self._home, self._spool.path.stem, self._config.flush_seconds)


def _read_record(url: str) -> dict[str, Any] | None:
    text = ArtifactDir(url).read(TRACKING_RECORD)
    return json.loads(text) if text else None


def _tracked_files(record: Mapping[str, Any], artifact: Artifact) -> list[str]:
    return sorted({name for pattern in record["tracked"] for name in artifact.names(pattern)})


def _dataset(artifact: Artifact) -> dict[str, Any]:
    manifest = artifact.manifest
    return {
        "name": manifest["stage"],
        "fingerprint": manifest["fingerprint"],
        "url": artifact.url,
        "counts": manifest.get("counts", {}),
    }


def _instance(node_id: str) -> str:
    return node_id.partition("[")[2].removesuffix("]")


def model_name(node_id: str) -> str:
    """`pretrain[blip2_tiny]` registers as `pairmill-blip2_tiny`, `finetune[blip2_tiny/vqa]` with `-vqa` after it."""
    return f"pairmill-{(_instance(node_id) or node_id).replace('/', '-')}"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
