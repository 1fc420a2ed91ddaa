"""Settings of MLflow tracking, under the key `tracking`; none of them can change a result."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from stages.base.contract import NotFingerprinted, StageConfig


class TrackingConfig(StageConfig):
    """Where the store lies is not said here: `MLFLOW_TRACKING_URI` if set, else SQLite in the workspace."""

    enabled: Annotated[bool, NotFingerprinted] = True
    """False runs without MLflow: nothing is spooled, nothing is delivered."""
    experiment: Annotated[str, NotFingerprinted, Field(min_length=1, max_length=500, pattern=r"\S")] = "pairmill"
    """MLflow experiment that receives the runs; made when it does not exist."""
    flush_seconds: Annotated[float, NotFingerprinted, Field(ge=0.1, le=600)] = 2.0
    """How often the metrics of a stage at work are sent."""
    close_seconds: Annotated[float, NotFingerprinted, Field(ge=0, le=600)] = 20.0
    """How long the end of a run waits for the last events to arrive; what is left is delivered the next time."""
