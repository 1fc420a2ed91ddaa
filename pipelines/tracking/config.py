"""Settings of MLflow tracking, and the MLflow store that a workspace uses."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from stages.base.artifact import is_remote
from stages.base.contract import NotFingerprinted, StageConfig

#: Nothing is reported to MLflow's makers, and a store that is down is noticed in seconds instead of MLflow's own many
#: minutes (7 retries of up to 120 s with exponential pauses): the spool retries. Variables that the user set win.
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    # The server's job runner (LLM judges) would be three more processes that nothing here uses.
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}


class TrackingConfig(StageConfig):
    """The key `tracking`; nothing in it can change a result. `backend` below decides which store receives the runs."""

    enabled: Annotated[bool, NotFingerprinted] = True
    """False runs without MLflow: nothing is spooled, nothing is delivered."""
    experiment: Annotated[str, NotFingerprinted, Field(min_length=1, max_length=500, pattern=r"\S")] = "pairmill"
    """MLflow experiment that receives the runs; created if it does not exist."""
    flush_seconds: Annotated[float, NotFingerprinted, Field(ge=0.1, le=600)] = 2.0
    """How often the metrics of a running stage are sent."""
    close_seconds: Annotated[float, NotFingerprinted, Field(ge=0, le=600)] = 20.0
    """How long the end of an invocation waits for its last events to be delivered; the rest follows the next time."""


@dataclass(frozen=True)
class Backend:
    """An MLflow store (MLflow's "backend store")."""

    uri: str
    artifact_root: str | None
    """Where the files of a new experiment go; None leaves that to the user's own server."""

    @property
    def database(self) -> Path | None:
        """The SQLite file, if the store is one."""
        return Path(self.uri.removeprefix("sqlite:///")) if self.uri.startswith("sqlite:///") else None

    @property
    def is_server(self) -> bool:
        """Whether the store is a tracking server, which has its own web page."""
        return self.uri.startswith(("http://", "https://"))

    def run_ids(self, keys: Iterable[str]) -> dict[str, str]:
        """Key (the tag `pairmill.key`) -> MLflow run id, for the keys that a SQLite store has; empty for other stores.

        Reads the table `tags` (key, value, run_uuid; unchanged since MLflow's first schema) directly, because
        importing MLflow takes seconds.
        """
        if self.database is None or not self.database.exists():
            return {}
        run_ids: dict[str, str] = {}
        # An OperationalError means that the store is being created, or locked for writing.
        with contextlib.suppress(sqlite3.OperationalError):
            uri = f"{self.database.absolute().as_uri()}?mode=ro"
            with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=2)) as connection:
                query = "SELECT value, run_uuid FROM tags WHERE key = 'pairmill.key' AND value = ?"
                for key in keys:
                    run_ids.update(connection.execute(query, (key,)).fetchmany(1))
        return run_ids


def backend(workspace: str) -> Backend:
    """`MLFLOW_TRACKING_URI` if set, else `<home>/mlflow/mlflow.db` with its files beside it."""
    if uri := os.environ.get("MLFLOW_TRACKING_URI"):
        return Backend(uri, None)
    folder = home(workspace) / "mlflow"
    return Backend(f"sqlite:///{folder / 'mlflow.db'}", (folder / "artifacts").as_uri())


def home(workspace: str) -> Path:
    """Local folder of the spool and the SQLite store: the workspace, or a folder in the cache if that is remote."""
    if not is_remote(workspace):
        return Path(workspace.removeprefix("file://")).absolute()
    cache = Path(os.environ.get("PAIRMILL_CACHE", Path.home() / ".cache" / "pairmill"))
    return cache / f"tracking-{hashlib.sha256(workspace.rstrip('/').encode()).hexdigest()[:12]}"


def environment() -> dict[str, str]:
    """Environment variables of every MLflow process we start: the user's, and ours where the user set none."""
    return {**_ENVIRONMENT, **os.environ}
