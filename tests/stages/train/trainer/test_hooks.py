"""Hooks in real runs: what they are called with, what they may ask of the trainer, what becomes of their state."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import ray.cloudpickle

from stages.base.contract import UserError
from stages.train.config import TrainConfig
from stages.train.job import TrainingJob
from stages.train.trainer.hooks import Hook, StepResult
from stages.train.trainer.ranks import RankInfo
from stages.train.trainer.trainer import make_hooks

DOCS = Path(__file__).resolve().parents[4] / "docs" / "training.md"
# Ranks cannot import this module: its classes travel whole.
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])

Run = Callable[..., Path]


def history(out: Path) -> list[tuple[int, dict[str, float]]]:
    lines = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    clock = ("samples_per_s", "tokens_per_s", "model_flops_per_s")
    return [(x["step"], {k: v for k, v in x["metrics"].items() if k not in clock}) for x in lines]


class Diary(Hook):
    """Writes down every call on every rank; asks for a checkpoint after step 3 and raises errors on request."""

    def __init__(self, folder: Path, fails_at: int = 0, error: type[Exception] = RuntimeError) -> None:
        self.folder = folder
        self.fails_at = fails_at
        self.error = error
        self.steps: list[int] = []

    def write(self, trainer: Any, *entry: Any) -> None:
        with open(self.folder / f"rank-{trainer.ranks.rank}.jsonl", "a") as file:
            file.write(json.dumps(entry) + "\n")

    def on_phase_start(self, trainer: Any) -> None:
        self.write(trainer, "start", self.steps)

    def on_step(self, trainer: Any, step: StepResult) -> None:
        self.steps.append(step.step)
        self.write(trainer, "step", step.step, step.losses, step.grad_norm, step.tokens, step.lr, step.last)
        if step.step == 3:
            trainer.request_checkpoint()
        if step.step == self.fails_at and not (self.folder / f"failed-{trainer.ranks.rank}").exists():
            raise self.error("the hook failed on purpose")

    def on_checkpoint(self, trainer: Any, folder: Path) -> None:
        (folder / f"diary-{trainer.ranks.rank}").write_text("")
        self.write(trainer, "checkpoint", folder.name)

    def on_phase_end(self, trainer: Any) -> None:
        self.write(trainer, "end")

    def on_exception(self, trainer: Any, error: BaseException) -> None:
        (self.folder / f"failed-{trainer.ranks.rank}").write_text(f"{type(error).__name__}: {error}")
        # Ray Train ends all ranks once one has failed: none may return before the other has been called.
        deadline = time.monotonic() + 60
        while len(list(self.folder.glob("failed-*"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        raise KeyError("a hook that fails itself")

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]


def diary(folder: Path, rank: int) -> list[list[Any]]:
    return [json.loads(line) for line in (folder / f"rank-{rank}.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_hooks_see_the_same_figures_on_all_ranks_and_change_nothing(run: Run, tmp_path: Path) -> None:
    plain = run(name="plain")
    watched = run([partial(Diary, tmp_path)], name="watched")
    assert history(watched) == history(plain)
    weights = [(out / "model" / "model.safetensors").read_bytes() for out in (plain, watched)]
    assert weights[0] == weights[1]
    entries = diary(tmp_path, 0)
    assert entries == diary(tmp_path, 1)
    kinds = [entry[0] for entry in entries]
    assert kinds == ["start", "step", "step", "step", "checkpoint", "step", "step", "step", "end"]
    steps = [entry for entry in entries if entry[0] == "step"]
    assert [entry[-1] for entry in steps] == [False] * 5 + [True]
    for (_, line), pair in zip(history(plain), zip(steps[::2], steps[1::2], strict=True), strict=True):
        losses = [losses["loss"] for _, _, losses, *_ in pair]
        assert line["loss"] == pytest.approx(sum(losses) / 2)
        assert (line["grad_norm"], line["lr"]) == (pair[1][3], pair[1][5])
    # Sample `i` has 1 + i % 3 tokens and the end of its text; an epoch of 24 has 72, and 6 batches of 8 are two.
    assert sum(entry[4] for entry in steps) == 2 * 72


@pytest.mark.slow
def test_a_hook_that_fails_does_not_hide_the_error_and_goes_on_from_its_state(run: Run, tmp_path: Path) -> None:
    plain = run(name="plain")
    failed = run([partial(Diary, tmp_path, fails_at=5)], name="failed", failures=1)
    for rank in range(2):
        assert (tmp_path / f"failed-{rank}").read_text() == "RuntimeError: the hook failed on purpose"
        entries = diary(tmp_path, rank)
        assert [entry for entry in entries if entry[0] == "start"] == [["start", []], ["start", [1, 2, 3]]]
        assert [entry[1] for entry in entries if entry[0] == "step"] == [1, 2, 3, 4, 5, 4, 5, 6]
    assert history(failed) == history(plain)


@pytest.mark.slow
def test_a_users_mistake_reaches_the_hooks_and_the_user(run: Run, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^the hook failed on purpose$"):
        run([partial(Diary, tmp_path, fails_at=2, error=UserError)])
    assert (tmp_path / "failed-1").read_text() == "UserError: the hook failed on purpose"


@pytest.mark.slow
def test_the_hook_of_the_documentation_stops_both_phases(run: Run) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(code, names)
    out = run([partial(names["StopBelow"], bound=1e9)], phases=2)
    record = json.loads((out / "train.json").read_text())
    assert [phase["steps"] for phase in record["phases"]] == [3, 3]
    lines = history(out)
    assert [step for step, _ in lines] == [2, 3, 3, 8, 9, 9]
    stopped = {step: line["stopped_at_loss"] for step, line in lines if "stopped_at_loss" in line}
    means = {step: line["loss"] for step, line in lines if "loss" in line}
    assert stopped == {3: means[3], 9: means[9]}  # the last line of a phase is of its third step alone


def test_two_hooks_of_one_name_are_refused(tmp_path: Path) -> None:
    import torch

    class ArtifactJob:
        settings = TrainConfig.model_validate({"phases": [{"objective": "x", "steps": 1}]})
        precision = "fp32"
        folder = tmp_path
        hooks = (Hook, Hook)

    job: TrainingJob = ArtifactJob()  # type: ignore[assignment]
    with pytest.raises(ValueError, match=r"same name: .*Hook, Hook"):
        make_hooks(job, RankInfo(0, 1, 1, torch.device("cpu")))
