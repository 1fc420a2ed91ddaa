"""The learning rate at steps where it is known in advance, steps per phase, micro-batches per step."""

from __future__ import annotations

import pytest

from stages.base.contract import UserError
from stages.train.config import OptimizationConfig, PhaseConfig
from stages.train.trainer.schedule import accumulation_steps, learning_rate, phase_steps, warmup_steps


def test_warm_up_rises_linearly_to_the_peak() -> None:
    settings = OptimizationConfig(warmup=0.1)
    assert [learning_rate(settings, 1.0, step, 40) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]
    assert learning_rate(settings, 1.0, 4, 40) == 1.0


def test_warm_up_from_one_on_counts_steps() -> None:
    assert warmup_steps(OptimizationConfig(warmup=2000), 10_000) == 2000
    assert warmup_steps(OptimizationConfig(warmup=2000), 100) == 100
    assert warmup_steps(OptimizationConfig(warmup=0.1), 330_000) == 33_000


@pytest.mark.parametrize(("schedule", "half"), [("cosine", 0.55), ("linear", 0.55), ("constant", 1.0)])
def test_decay_is_half_way_down_in_the_middle(schedule: str, half: float) -> None:
    settings = OptimizationConfig(warmup=0, schedule=schedule, min_lr=0.1)
    assert learning_rate(settings, 1.0, 0, 100) == 1.0
    assert learning_rate(settings, 1.0, 50, 100) == pytest.approx(half)


def test_cosine_ends_above_its_floor_and_close_to_it() -> None:
    settings = OptimizationConfig(warmup=0.1, min_lr=1e-6)
    last = learning_rate(settings, 5e-5, 999, 1000)
    assert 1e-6 < last < 1.01e-6


def test_a_peak_below_the_floor_stays_where_it_is() -> None:
    settings = OptimizationConfig(warmup=0, min_lr=1e-3)
    assert learning_rate(settings, 1e-5, 99, 100) == 1e-5


def test_an_uneven_batch_is_refused_with_keys_and_numbers() -> None:
    settings = OptimizationConfig(global_batch=64, micro_batch=24)
    with pytest.raises(UserError, match=r"tasks.x.global_batch=64 .* tasks.x.micro_batch=24 x 2 ranks = 48"):
        accumulation_steps(settings, 2, "tasks.x")


def test_epochs_become_steps_that_reach_the_last_sample() -> None:
    phases = [PhaseConfig(objective="a", epochs=1), PhaseConfig(objective="b", steps=7)]
    assert phase_steps(phases, 64, [100, 100]) == [2, 7]
