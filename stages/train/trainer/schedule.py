"""The learning rate of a step: linear warm-up, then cosine, linear or no decay."""

from __future__ import annotations

import math

from stages.train.config import OptimizationConfig


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
