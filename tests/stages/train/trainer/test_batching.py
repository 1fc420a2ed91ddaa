"""How a global batch is split."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import settings as trials
from hypothesis import strategies as st

from stages.base.contract import UserError
from stages.train.config import OptimizationConfig, PhaseConfig
from stages.train.trainer.batching import accumulation_steps, phase_steps, rows


@trials(deadline=None, max_examples=40)
@given(st.integers(1, 8), st.integers(1, 5), st.integers(1, 6))
def test_ranks_and_micro_steps_cover_a_step_exactly_once(micro: int, world: int, accumulation: int) -> None:
    size = micro * world * accumulation
    settings = OptimizationConfig(global_batch=size, micro_batch=micro)
    assert accumulation_steps(settings, world, "train") == accumulation
    batch = list(range(size))
    taken = [batch[rows(part, rank, accumulation, micro)] for rank in range(world) for part in range(accumulation)]
    assert [row for some in taken for row in some] == batch  # a rank's rows lie together


def test_an_uneven_batch_is_refused_with_keys_and_numbers() -> None:
    settings = OptimizationConfig(global_batch=64, micro_batch=24)
    with pytest.raises(UserError, match=r"tasks.x.global_batch=64 .* tasks.x.micro_batch=24 x 2 ranks = 48"):
        accumulation_steps(settings, 2, "tasks.x")


def test_epochs_become_steps_that_reach_the_last_sample() -> None:
    phases = [PhaseConfig(objective="a", epochs=1), PhaseConfig(objective="b", steps=7)]
    assert phase_steps(phases, 64, 100) == [2, 7]
