"""Settings of the `signals` stage."""

from __future__ import annotations

from stages.contract import StageConfig


class SignalsConfig(StageConfig):
    """Nothing to choose: every family is measured, so that a new selection never asks for an image again.

    What a family measures is part of the stage's `version`.
    """
