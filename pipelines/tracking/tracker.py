"""What the runner tells of a run. Nothing here imports MLflow, waits for it, or can fail because of it."""

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
from pipelines.tracking.backend import home
from pipelines.tracking.config import TrackingConfig
from pipelines.tracking.params import flatten, is_private, private_names, redact, redact_words
from pipelines.tracking.process import Delivery
from pipelines.tracking.spool import Spool, spool_path
from stages.base.artifact import Artifact
from stages.base.contract import Stage

log = logging.getLogger(__name__)

#: Beside an artifact, finished or not: the key that names its MLflow run, in whichever store that is.
TRACKING_RECORD = "_tracking.json"

Status = Literal["FINISHED", "FAILED", "KILLED"]


class Tracker:
    """Appends events to a spool in the workspace; a process of its own (`process.py`) takes them to MLflow.

    The runner calls `start` once, `node_*` as nodes come and go (any thread), `close` at the end. A driver that is
    killed leaves its spool; the next invocation, or `pairmill ui`, delivers the rest of it.
    """

    def __init__(self, config: TrackingConfig, workspace: str) -> None:
        self._config = config
        self._home = home(workspace)
        self._spool: Spool | None = None
        self._delivery: Delivery | None = None
        self._lock = threading.Lock()
        self._private: set[str] = set()
        self.invocation = ""
        """Names this run of the command, in `run.json` and in MLflow; empty while nothing is tracked."""

    def start(self, command: str, tags: Mapping[str, str], params: Mapping[str, Any]) -> None:
        """Open the invocation: its parent run is named after the command and carries `params` (a nested config)."""
        if not self._config.enabled:
            return
        # Sorts by start, so that what a run before left behind is delivered first.
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
        """A stage begins, or goes on after a kill (then its MLflow run goes on too).

        `config` is the stage's own, whole; a source in it marked private is reduced to its name. Of a node that works
        on a private source (by its config, or by the source's name in its id) no file is uploaded, no error quoted.
        `inputs`: role -> urls of artifacts. `metrics_file` (`StageContext.metrics_file`) is followed while the
        stage runs.
        """
        if self._spool is None:
            return
        hidden = is_private(config) or _instance(node_id) in self._private
        record = {
            "key": (_record(str(artifact_dir)) or {}).get("key") or uuid.uuid4().hex,
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

    def node_finished(
        self,
        node_id: str,
        artifact: Artifact,
        summary: Mapping[str, float] | None = None,
    ) -> None:
        """A stage's artifact is sealed: `summary` is a few figures of it (its counts if None)."""
        if self._spool is None:
            return
        record = _record(artifact.url)
        if record is None:  # could not be written, which has been said
            return
        self._append(
            "node_finished",
            node=node_id,
            key=record["key"],
            artifact=artifact.url,
            fingerprint=artifact.fingerprint,
            summary=dict(artifact.counts if summary is None else summary),
            files=sorted({name for pattern in record["tracked"] for name in artifact.names(pattern)}),
            history="history.jsonl" if artifact.names("history.jsonl") else None,
            model=model_name(node_id) if record["registers"] else None,
        )
        self._write_record(artifact.url, {**record, "finished": True})

    def node_reused(self, node_id: str, artifact: Artifact) -> None:
        """An artifact was there already: the parent run is tagged with the run that made it."""
        if self._spool is None:
            return
        record = _record(artifact.url)
        if record and not record["finished"]:
            # The driver was killed after sealing the artifact and before saying so.
            self.node_finished(node_id, artifact)
        self._append(
            "node_reused",
            node=node_id,
            key=record["key"] if record else None,
            fingerprint=artifact.fingerprint,
        )

    def node_failed(self, node_id: str, error: str) -> None:
        """A stage gave up; `error` is one line, withheld where the node works on a private source."""
        self._append("node_failed", node=node_id, error=error)

    def node_rewritten(self, node_id: str, artifact: Artifact) -> None:
        """Files of a finished artifact changed because samples were forgotten: MLflow's copies are replaced."""
        record = _record(artifact.url) if self._spool is not None else None
        if record is None:
            return
        files = sorted({name for pattern in record["tracked"] for name in artifact.names(pattern)})
        self._append("node_rewritten", node=node_id, key=record["key"], artifact=artifact.url, files=files)
        self._deliver()

    def model_forgot(self, node_id: str, artifact: Artifact, samples: int, date: str) -> None:
        """A trained model saw samples that were forgotten since: `samples` in all, lastly on `date` (ISO 8601)."""
        record = _record(artifact.url) if self._spool is not None else None
        if record is None:
            return
        model = model_name(node_id) if record["registers"] else None
        self._append("model_forgot", node=node_id, key=record["key"], model=model, samples=samples, date=date)
        self._deliver()

    def final_scores(self, scores: Mapping[str, float]) -> None:
        """Figures of the whole run, set as metrics of the parent run: the scores of its benchmarks."""
        self._append("final_scores", scores=dict(scores))

    def close(self, status: Status = "FINISHED") -> None:
        """End the invocation: waits up to `close_seconds` for the last events to arrive, then leaves them spooled.

        Where no stage ran there is nothing anyone waits to see: the events stay for the next delivery.
        """
        if self._spool is None:
            return
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


def _record(url: str) -> dict[str, Any] | None:
    text = ArtifactDir(url).read(TRACKING_RECORD)
    return json.loads(text) if text else None


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
