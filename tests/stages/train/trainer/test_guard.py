"""Losses and gradients that are not finite, and spikes: left out, told, recorded; and the end of a run gone wrong."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray.cloudpickle
import torch

from stages.base.contract import UserError
from stages.train.config import TrainConfig
from stages.train.resume import with_fewer_skipped
from stages.train.trainer.guard import StepGuard, Usual, admitted, recorded_steps
from stages.train.trainer.hooks import Hook, StepResult
from stages.train.trainer.trainer import check_skipped
from tests.stages.train.trainer import guarded_steps
from tests.stages.train.trainer.launch_ranks import launch_ranks

# Ranks cannot import this module: its classes travel whole.
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])

Run = Callable[..., Path]


class Poison(Hook):
    """Puts NaN into the pixels that the second rank sees in some of a phase's steps, counted from 1."""

    def __init__(self, steps: tuple[int, ...]) -> None:
        self.steps = steps

    def on_phase_start(self, trainer: Any) -> None:
        whole, each = trainer.loader.batches, trainer.accumulation

        def batches(first: int, last: int) -> Iterator[Any]:
            for number, batch in enumerate(whole(first, last)):
                step = first - trainer.first_data_step + number // each + 1
                if trainer.ranks.rank == 1 and step in self.steps:
                    batch["pixels"] = torch.full_like(batch["pixels"], math.nan)
                yield batch

        trainer.loader.batches = batches


class Mislabel(Hook):
    """Has both ranks learn a token that no text has, in one step of a phase."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_phase_start(self, trainer: Any) -> None:
        whole, each = trainer.loader.batches, trainer.accumulation

        def batches(first: int, last: int) -> Iterator[Any]:
            for number, batch in enumerate(whole(first, last)):
                if first + number // each + 1 == self.step:
                    batch["target_ids"] = torch.full_like(batch["target_ids"], 63)
                yield batch

        trainer.loader.batches = batches


def lines(out: Path) -> dict[int, dict[str, float]]:
    entries = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    return {entry["step"]: entry["metrics"] for entry in entries}


@pytest.mark.slow
def test_a_step_that_is_not_finite_on_one_rank_is_left_out_on_all(run: Run) -> None:
    out = run([partial(Poison, (3,))])
    record = json.loads((out / "train.json").read_text())
    assert record["unusual_steps"] == [{"step": 3, "phase": 0, "what": "not finite", "updated": False}]
    found = lines(out)
    assert {step: line["skipped_steps"] for step, line in found.items()} == {2: 0, 4: 1, 6: 0}
    assert all(math.isfinite(value) for line in found.values() for value in line.values())
    entry = json.loads((out.parent / "scratch" / "train" / "unusual_steps.jsonl").read_text())
    assert len(entry["uids"]) == len(set(entry["uids"])) == 8
    assert all(int(uid, 16) < 24 for uid in entry["uids"])
    assert entry["losses"]["loss"] == entry["grad_norm"].replace("inf", "nan") == "nan"


@pytest.mark.slow
def test_too_many_in_a_row_end_the_run_which_goes_on_past_them_when_they_are_skipped(run: Run, tmp_path: Path) -> None:
    poison = [partial(Poison, (5, 6))]
    bad = {"hooks": poison, "name": "bad", "checkpoint_every": 2, "max_skipped_steps": 1}
    for _ in range(2):  # the same again is no better
        with pytest.raises(UserError, match=r"steps 5 to 6 of phase 0 .language_modeling. are not finite") as told:
            run(**bad)
        assert "\n" not in str(told.value)
        assert "train.skip_steps" in str(told.value)
    begun = {"5": str(tmp_path / "bad" / "scratch")}
    after = run(poison, name="after", checkpoint_every=2, skip_steps=[5, 6], earlier=begun)
    record = json.loads((after / "train.json").read_text())
    assert record["unusual_steps"] == [
        {"step": step, "phase": 0, "what": "skip_steps", "updated": False} for step in (5, 6)
    ]
    assert record["phases"][0]["steps"] == 6
    found = lines(after)
    assert {step: line["skipped_steps"] for step, line in found.items()} == {2: 0, 4: 0, 6: 2}
    # Steps 1 to 4 are those of the run before, with their times.
    before = [json.loads(line) for line in (tmp_path / "bad" / "scratch" / "metrics.jsonl").read_text().splitlines()]
    assert [entry["metrics"] for entry in before[:2]] == [found[2], found[4]]


@pytest.mark.slow
def test_a_spike_is_left_out_where_that_is_asked_for(run: Run) -> None:
    long = {"phases": [{"objective": "language_modeling", "steps": 45}], "lr": 0.03, "spike_deviations": 8}
    spike = {"step": 43, "phase": 0}
    for settings, expected in [
        ({"skip_spikes": 8}, {**spike, "what": "spike", "updated": False}),
        ({}, {**spike, "what": "spike of loss and grad_norm", "updated": True}),
    ]:
        out = run([partial(Mislabel, 43)], name=f"run-{len(settings)}", recipe={**long, **settings})
        found = json.loads((out / "train.json").read_text())["unusual_steps"]
        assert [record for record in found if record["step"] == 43] == [expected]


@pytest.mark.slow
def test_what_goes_on_equals_what_skipped_the_steps_from_the_start(run: Run, tmp_path: Path) -> None:
    poison = [partial(Poison, (3, 4))]
    with pytest.raises(UserError, match="steps 3 to 4"):
        run(poison, name="bad", checkpoint_every=2, max_skipped_steps=1, phases=2)
    # As a kill leaves it that comes when a phase's state is written and its folder not yet renamed: not to be used.
    torn = tmp_path / "bad" / "scratch" / "train" / "phase-0.part"
    torn.mkdir()
    (torn / "progress.json").write_text('{"ranks": 2, "phase": 0, "step": 2, "run_step": 2, "hooks": {}}')
    begun = {"3": str(tmp_path / "bad" / "scratch")}
    skipping = {"skip_steps": [3, 4], "phases": 2, "checkpoint_every": 2}
    weights = [
        (out / "model" / "model.safetensors").read_bytes()
        for out in (run(name="after", earlier=begun, **skipping), run(name="plain", **skipping))
    ]
    assert weights[0] == weights[1]


def test_steps_beyond_the_last_and_all_of_a_phase_cannot_be_skipped() -> None:
    phases = [SimpleNamespace(objective="first"), SimpleNamespace(objective="second")]
    job: Any = SimpleNamespace(key="train", settings=SimpleNamespace(skip_steps=[2, 7, 9]), phases=phases)
    with pytest.raises(UserError, match=r"^train\.skip_steps: step 9 is beyond the last one, 8$"):
        check_skipped(job, [6, 2])
    with pytest.raises(UserError, match=r"^train\.skip_steps leaves phase 1 .second. no step: leave some in$"):
        check_skipped(job, [8, 1])
    check_skipped(job, [6, 3])


@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=pytest.mark.slow)])
def test_the_weights_are_those_of_a_run_without_the_step_under_every_stage(precision: str, tmp_path: Path) -> None:
    for found in launch_ranks(2, guarded_steps.weights_after, precision, [0, 1, 2, 3], str(tmp_path)):
        for stage, result in found.items():
            assert result == {"applied": [True, False, True, True], "equal": True, "finite": True}, stage


def test_a_loss_that_is_not_finite_or_not_allowed_is_multiplied_by_nan() -> None:
    for loss, allowed, good in [
        (2.0, None, True),
        (math.inf, None, False),
        (math.nan, None, False),
        (2.0, False, False),
    ]:
        weight = torch.tensor(loss, requires_grad=True)
        factor = admitted(weight, None if allowed is None else torch.tensor(allowed))
        (weight * factor).backward()
        assert weight.grad is not None
        assert bool(weight.grad == 1) == good
        assert bool(weight.grad.isnan()) != good


def test_usual_is_a_median_that_single_outliers_do_not_move() -> None:
    usual = Usual()
    for step in range(19):
        usual.add(1 + 0.1 * (step % 3))
    assert usual.bound(5) == math.inf
    usual.add(1000.0)
    assert 1.1 < usual.bound(5) < 2
    level = Usual([2.0] * 100)
    assert level.bound(10) == pytest.approx(2.4)
    assert len(Usual(range(500)).values) == 100


def taken(number: int, loss: float = 1.0, norm: float = 1.0, left_out: str = "") -> StepResult:
    return StepResult(
        step=number,
        run_step=number,
        last=False,
        lr=0.1,
        names=["flops", "loss", "replaced", "tokens"],
        totals=torch.tensor([0, loss, 0, 1], dtype=torch.float64),
        world_size=1,
        replaced_here=[],
        gradient_norm=lambda: norm,
        left_out=left_out,
    )


@pytest.fixture
def trainer() -> Any:
    return SimpleNamespace(
        ranks=SimpleNamespace(rank=0),
        phase=0,
        run_step=0,
        config=SimpleNamespace(objective="language_modeling"),
        job=SimpleNamespace(key="train"),
        uids_of_step=lambda step: [f"{step:032x}"],
    )


def test_spikes_are_told_and_kept(trainer: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    guard = StepGuard(tmp_path, most_in_a_row=0, deviations=10)
    for number in range(1, 31):
        guard.on_step(trainer, taken(number, 1 + 0.01 * (number % 5)))
    guard.on_step(trainer, taken(31, 3.0))
    guard.on_step(trainer, taken(32, 1.0, norm=7.0))
    told = [record.getMessage() for record in caplog.records]
    assert [message.split(":")[1] for message in told] == [" spike of loss", " spike of grad_norm"]
    assert "loss 3" in told[0]
    assert recorded_steps(tmp_path) == [
        {"step": 31, "phase": 0, "what": "spike of loss", "updated": True},
        {"step": 32, "phase": 0, "what": "spike of grad_norm", "updated": True},
    ]
    quiet = StepGuard(tmp_path / "none", most_in_a_row=0, deviations=None)
    quiet.on_step(trainer, taken(1, 1e30))


def test_a_phase_does_not_end_on_what_is_not_finite(trainer: Any, tmp_path: Path) -> None:
    guard = StepGuard(tmp_path, most_in_a_row=5, deviations=None)
    guard.on_step(trainer, taken(1, math.nan, math.inf, "not finite"))
    with pytest.raises(UserError, match=r"step 1 of phase 0 .* are not finite: the phase ended"):
        guard.on_phase_end(trainer)
    guard.on_step(trainer, taken(2))
    guard.on_phase_end(trainer)


def test_spikes_without_end_are_no_training(trainer: Any, tmp_path: Path) -> None:
    guard = StepGuard(tmp_path, most_in_a_row=2, deviations=None, skips_spikes=True)
    for number in range(1, 31):
        guard.on_step(trainer, taken(number))
    assert len(guard.losses.values) == 30
    for number in (31, 32):
        guard.on_step(trainer, taken(number, 9.0, math.inf, "spike"))
    guard.on_phase_end(trainer)  # a phase may end on a spike
    with pytest.raises(UserError, match=r"steps 31 to 33 .* are not finite, or spikes: that is more than"):
        guard.on_step(trainer, taken(33, 9.0, math.inf, "spike"))


def test_without_spikes_to_look_for_no_figure_is_read(trainer: Any, tmp_path: Path) -> None:
    def unread() -> float:
        raise AssertionError("the device was waited for")

    guard = StepGuard(tmp_path, most_in_a_row=2, deviations=None)
    guard.on_step(trainer, replace(taken(1), gradient_norm=unread))
    assert not guard.losses.values


def test_a_resumed_guard_counts_on_and_drops_what_comes_again(trainer: Any, tmp_path: Path) -> None:
    guard = StepGuard(tmp_path, most_in_a_row=2, deviations=None)
    for number in (1, 2):
        guard.on_step(trainer, taken(number, math.nan, math.inf, "not finite"))
    state = json.loads(json.dumps(guard.state_dict()))
    (tmp_path / "unusual_steps.jsonl").open("a").write('{"step": 3, "cut sho')
    again = StepGuard(tmp_path, most_in_a_row=2, deviations=None)
    again.load_state_dict(state)
    trainer.run_step = 1
    again.on_phase_start(trainer)
    assert [record["step"] for record in recorded_steps(tmp_path)] == [1]
    with pytest.raises(UserError, match=r"steps 1 to 3 .* more than train\.max_skipped_steps=2 in a row"):
        again.on_step(trainer, taken(3, math.nan, math.inf, "not finite"))


def test_earlier_runs_are_those_with_fewer_steps_skipped() -> None:
    phases = [{"objective": "x", "steps": 9}]
    settings = TrainConfig.model_validate({"phases": phases, "skip_steps": [7, 3, 3, 4]})
    assert settings.skip_steps == [3, 4, 7]
    found = {first: earlier.skip_steps for first, earlier in with_fewer_skipped(settings).items()}
    assert found == {"3": [], "4": [3], "7": [3, 4]}
