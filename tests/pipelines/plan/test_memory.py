"""The memory of each ZeRO stage: the paper's bytes per parameter, and where DeepSpeed departs from them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from models.common.cost_tape import Tape
from pipelines.plan.memory import Moment, Setting, Weights, gathered, host, moments
from stages.train.trainer.zero_sizes import bucket_elements

LEARNING, FROZEN, RANKS = 6e9, 10e9, 64
WEIGHTS = Weights(trainable=LEARNING, frozen=FROZEN, largest=1e8, persistent=0.0, layer=3e8)


def at(name: str, stage: int, size: int = 2, **fields: object) -> Moment:
    setting = Setting(stage=stage, data_ranks=RANKS, size=size, accumulation=2, **fields)  # type: ignore[arg-type]
    return next(moment for moment in moments(WEIGHTS, Tape(trainable=()), setting) if moment.name == name)


@pytest.mark.parametrize(
    ("stage", "weights", "optimizer"),
    [
        (0, 2 * (LEARNING + FROZEN), 12 * LEARNING),
        (1, 2 * (LEARNING + FROZEN), 12 * LEARNING / RANKS),
        (2, 2 * (LEARNING + FROZEN), 12 * LEARNING / RANKS),
        (3, 2 * (LEARNING + FROZEN) / RANKS, 12 * LEARNING / RANKS),
    ],
)
def test_each_stage_spreads_what_the_paper_says(stage: int, weights: float, optimizer: float) -> None:
    items = at("forward", stage).items
    assert items["weights"] == pytest.approx(weights)
    assert items["optimizer"] == pytest.approx(optimizer)


def test_gradients_wait_whole_at_stage_1_and_in_shards_above() -> None:
    assert at("forward", 1).items["gradients"] == 2 * LEARNING
    assert at("forward", 2).items["gradients"] == at("forward", 3).items["gradients"] == 2 * LEARNING / RANKS


def test_in_fp32_masters_are_kept_beside_the_weights_wherever_the_optimizer_is_spread() -> None:
    assert at("forward", 0, size=4).items["optimizer"] == 8 * LEARNING
    assert at("forward", 1, size=4).items["optimizer"] == 12 * LEARNING / RANKS


def test_offloading_moves_the_optimizer_to_the_hosts() -> None:
    setting = Setting(stage=2, data_ranks=RANKS, size=2, accumulation=2, offload_optimizer=True)
    assert at("forward", 2, offload_optimizer=True).items["optimizer"] == 0
    assert host(WEIGHTS, setting) >= 12 * LEARNING / RANKS


def test_frozen_weights_may_be_shared_by_fewer_ranks_than_those_that_learn() -> None:
    assert at("forward", 3, frozen_ranks=8).items["weights"] == pytest.approx(2 * (LEARNING / RANKS + FROZEN / 8))


def test_stage_3_holds_a_matrix_larger_than_a_layer_once() -> None:
    assert gathered(replace(WEIGHTS, matrix=5e8)) == (3e8 + 5e8, 5e8)


def test_stage_3_holds_a_layer_in_use_the_next_and_the_buffer_it_arrives_in() -> None:
    assert gathered(WEIGHTS) == (6e8, 3e8)
    small = Weights(trainable=1e6, frozen=0, largest=1e5, persistent=0, layer=8e5)
    assert gathered(small) == (1e6, 8e5)  # no more than there is


def test_on_a_gpu_gradients_pass_through_two_buckets_in_turn() -> None:
    assert at("forward", 1).items["buckets"] == 2 * 2 * bucket_elements(LEARNING)
    assert at("forward", 1, on_gpu=False).items["buckets"] == 2 * bucket_elements(LEARNING)
    assert at("forward", 3).items["buckets"] == 2 * bucket_elements(LEARNING)


def test_gloo_reduces_a_copy_of_what_stage_3_scatters() -> None:
    on_gpu, on_cpu = (at("reduction", 3, on_gpu=where).items["buckets"] for where in (True, False))
    assert on_gpu == 2 * 2 * bucket_elements(LEARNING)  # the bucket, and its copy for the collective
    assert on_cpu == 3 * 2 * bucket_elements(LEARNING)


def test_the_only_bucket_of_a_small_model_is_reduced_after_the_backward_pass() -> None:
    small = Weights(trainable=100.0, frozen=0.0, largest=100.0, persistent=0.0, layer=100.0)
    tape = Tape(trainable=("part",))
    with tape.part("part"):
        tape.linear(tape.tensor(1, 10), 10, "fc", bias=False)
    found = {m.name: m.items for m in moments(small, tape, Setting(stage=2, data_ranks=2, size=2, accumulation=1))}
    assert found["backward"]["buckets"] == 2 * 2 * 100
    assert found["reduction"]["buckets"] > found["backward"]["buckets"]
