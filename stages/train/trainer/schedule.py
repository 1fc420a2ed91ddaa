"""The plan of a run: steps per phase, micro-batches per step, and the learning rate of each step."""

from __future__ import annotations

import math
from collections.abc import Sequence

from stages.base.contract import UserError
from stages.train.config import OptimizationConfig, PhaseConfig


def warmup_steps(settings: OptimizationConfig, steps: int) -> int:
    """Steps of the warm-up in a phase of `steps` steps."""
    warmup = settings.warmup
    return min(steps, round(warmup * steps) if warmup < 1 else round(warmup))


def learning_rate(settings: OptimizationConfig, peak: float, step: int, steps: int) -> float:
    """Learning rate of the 0-based `step` of a phase of `steps` steps.

    The warm-up rises linearly and reaches `peak` on its last step; the decay would reach `min_lr`
    one step after the phase's end, so no step is wasted at a rate of 0.
    """
    warmup = warmup_steps(settings, steps)
    if step < warmup:
        return peak * (step + 1) / warmup
    if settings.schedule == "constant":
        return peak
    done = (step - warmup) / (steps - warmup)
    left = 0.5 * (1 + math.cos(math.pi * done)) if settings.schedule == "cosine" else 1 - done
    low = min(settings.min_lr, peak)
    return low + (peak - low) * left


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


def phase_steps(phases: Sequence[PhaseConfig], global_batch: int, samples: Sequence[int]) -> list[int]:
    """Optimizer steps of each phase; `samples` are those that each sees in an epoch (`data/phases.py`)."""
    return [
        phase.steps if phase.steps is not None else math.ceil((phase.epochs or 0) * size / global_batch)
        for phase, size in zip(phases, samples, strict=True)
    ]
