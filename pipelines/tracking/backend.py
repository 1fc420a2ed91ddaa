"""Which MLflow store a workspace uses, and the environment every MLflow process of ours gets."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from stages.base.artifact import is_remote

#: Nothing phones home, and a store that is down is noticed in seconds, not in MLflow's own many minutes (7 retries
#: of up to 120 s with exponential pauses): the spool retries for us. Each holds unless the user has set it.
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    # The server's job runner (LLM judges) is three more processes that nobody here uses.
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}


def environment() -> dict[str, str]:
    """The process environment with telemetry off and short timeouts, where the user has not said otherwise."""
    return {**_ENVIRONMENT, **os.environ}


def home(workspace: str) -> Path:
    """Local folder of the workspace's spool and SQLite store; for a workspace in an object store, one in the cache."""
    if not is_remote(workspace):
        return Path(workspace.removeprefix("file://")).absolute()
    cache = Path(os.environ.get("PAIRMILL_CACHE", Path.home() / ".cache" / "pairmill"))
    return cache / f"tracking-{hashlib.sha256(workspace.rstrip('/').encode()).hexdigest()[:12]}"


@dataclass(frozen=True)
class Backend:
    """An MLflow store."""

    uri: str
    artifact_root: str | None
    """Where a new experiment's files go; None leaves that to the server the user named."""

    @property
    def database(self) -> Path | None:
        """The SQLite file, where the store is one."""
        return Path(self.uri.removeprefix("sqlite:///")) if self.uri.startswith("sqlite:///") else None

    @property
    def is_server(self) -> bool:
        """Whether the store is a tracking server, which has its own web page."""
        return self.uri.startswith(("http://", "https://"))


def backend(workspace: str) -> Backend:
    """`MLFLOW_TRACKING_URI` if set; else `<workspace>/mlflow/mlflow.db` with its files beside it."""
    if uri := os.environ.get("MLFLOW_TRACKING_URI"):
        return Backend(uri, None)
    folder = home(workspace) / "mlflow"
    return Backend(f"sqlite:///{folder / 'mlflow.db'}", (folder / "artifacts").as_uri())
