"""The arithmetic of a step: how a global batch is split over accumulation steps and ranks."""

from __future__ import annotations

import math
from collections.abc import Sequence

from stages.base.contract import UserError
from stages.train.config import OptimizationConfig, PhaseConfig


def accumulation_steps(settings: OptimizationConfig, world_size: int, key: str) -> int:
    """Micro-batches each of `world_size` data-parallel ranks takes per optimizer step.

    Raises UserError naming `key` (``train`` or ``tasks.<name>``) when the global batch does not divide evenly.
    """
    per_pass = settings.micro_batch * world_size
    if settings.global_batch % per_pass:
        raise UserError(
            f"{key}.global_batch={settings.global_batch} is not a multiple of {key}.micro_batch="
            f"{settings.micro_batch} x {world_size} ranks = {per_pass}: change one of them"
        )
    return settings.global_batch // per_pass


def rows(micro_step: int, rank: int, accumulation: int, micro_batch: int) -> slice:
    """Rows of a step's global batch that one rank takes in one micro-step.

    A rank's rows lie together, all its micro-steps in turn: neighbours in the global batch lie near each other on disk
    (stages/train/data/sampler.py), so each node reads its own part of the data.
    """
    start = (rank * accumulation + micro_step) * micro_batch
    return slice(start, start + micro_batch)


def phase_steps(phases: Sequence[PhaseConfig], global_batch: int, samples: int) -> list[int]:
    """Optimizer steps of each phase over a data set of so many samples."""
    return [
        phase.steps if phase.steps is not None else math.ceil((phase.epochs or 0) * samples / global_batch)
        for phase in phases
    ]
