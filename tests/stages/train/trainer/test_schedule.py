"""The learning rate at the steps where it can be said in advance."""

from __future__ import annotations

import pytest

from stages.train.config import OptimizationConfig
from stages.train.trainer.schedule import learning_rate, warmup_steps


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
