"""A workspace with an empty MLflow store on SQLite."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipelines.tracking.config import environment
from tests.pipelines.tracking.lab import Lab


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
