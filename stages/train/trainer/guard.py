"""Steps that something is wrong with: losses or gradients that are not finite, and spikes.

A step whose gradients are not finite updates nothing: DeepSpeed's optimizers look at the global norm, which is the
same on every rank, and leave the step out on all of them; `deepspeed_engine.py` has the plain optimizer of ZeRO stage 0
do so too. A loss that is not finite makes the gradients so (`admitted`). What is left out is said, counted and written
to a file, and too many in a row end the run.
"""

from __future__ import annotations

import json
import logging
import math
import os
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from stages.base.contract import UserError
from stages.train.trainer.hooks import Hook, StepResult

if TYPE_CHECKING:
    from stages.train.trainer.trainer import Trainer

_LOG = logging.getLogger(__name__)
FILE = "unusual_steps.jsonl"
#: Steps whose median a spike is above, and the fewest of them that say what is usual.
_WINDOW, _FEWEST = 100, 20
#: Makes the median of absolute differences the standard deviation of what is normally distributed.
_MAD = 1.4826
#: A loss that hardly varies does not spike by varying a little more: the least deviation, as a share of the median.
_LEAST_DEVIATION = 0.02
#: Steps that are said in full; the file has all.
_LOGGED = 20


def admitted(loss: Tensor, allowed: Tensor | None = None) -> Tensor:
    """A factor for the loss, 1 or NaN: the latter for a loss that is not finite or, if given, not `allowed`.

    The gradients of a loss times NaN are NaN on this rank, their norm on all ranks, and so no rank updates its weights.
    """
    good = torch.isfinite(loss.detach())
    if allowed is not None:
        good = good & allowed
    return torch.where(good, 1.0, math.nan).to(loss.dtype)


class Usual:
    """What a figure usually is: its median and spread over the last steps."""

    def __init__(self, values: Iterable[float] = ()) -> None:
        self.values: deque[float] = deque(values, maxlen=_WINDOW)

    def add(self, value: float) -> None:
        """Take a step's figure into account."""
        self.values.append(value)

    def bound(self, deviations: float) -> float:
        """What lies so many deviations above the median; infinite before there are figures of twenty steps."""
        if len(self.values) < _FEWEST:
            return math.inf
        middle = median(self.values)
        spread = _MAD * median(abs(value - middle) for value in self.values)
        return middle + deviations * max(spread, _LEAST_DEVIATION * abs(middle))


class StepGuard(Hook):
    """Says and records steps that were left out and spikes; ends the run where too many in a row were not finite."""

    name = "guard"

    def __init__(self, folder: Path, most_in_a_row: int, deviations: float | None, skips_spikes: bool = False) -> None:
        """`deviations`: above its median a loss or a norm of gradients is a spike; null reports none. `skips_spikes`:
        whether the trainer asks what losses are usual."""
        self._file = folder / FILE
        self._most = most_in_a_row
        self._deviations = deviations
        self._watches = skips_spikes or deviations is not None
        self._in_a_row: list[int] = []
        self._ends_badly = False
        self._said = 0
        self.losses, self._norms = Usual(), Usual()

    def on_phase_start(self, trainer: Trainer) -> None:
        """Drop what the file has of later steps, which come again."""
        if trainer.ranks.rank or not self._file.exists():
            return
        lines = self._file.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= trainer.run_step]
        partial = self._file.with_name(self._file.name + ".part")
        partial.write_text("".join(kept), encoding="utf-8")
        os.replace(partial, self._file)

    def on_step(self, trainer: Trainer, step: StepResult) -> None:
        """Look at one step."""
        what = step.left_out
        if not what and self._deviations is not None:
            figures = {"loss": (step.losses["loss"], self.losses), "grad_norm": (step.grad_norm, self._norms)}
            above = [name for name, (value, usual) in figures.items() if value > usual.bound(self._deviations)]
            what = f"spike of {' and '.join(above)}" if above else ""
        if not step.left_out:
            self._in_a_row = []
            if self._watches:  # the device is waited for
                self.losses.add(step.losses["loss"])
                self._norms.add(step.grad_norm)
        elif step.left_out != "skip_steps":
            self._in_a_row.append(step.run_step)
        if step.left_out != "skip_steps":
            self._ends_badly = step.left_out == "not finite"
        if what:
            self._record(trainer, step, what)
        if len(self._in_a_row) > self._most:
            raise self._error(trainer, step)

    def on_phase_end(self, trainer: Trainer) -> None:
        """A phase does not end on a step that was not finite."""
        if self._ends_badly:
            raise self._error(trainer, None)

    def state_dict(self) -> dict[str, Any]:
        """The steps in a row, and what is usual."""
        return {
            "in_a_row": self._in_a_row,
            "ends_badly": self._ends_badly,
            "losses": list(self.losses.values),
            "grad_norms": list(self._norms.values),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with what a checkpoint knew."""
        self._in_a_row, self._ends_badly = list(state["in_a_row"]), state["ends_badly"]
        self.losses, self._norms = Usual(state["losses"]), Usual(state["grad_norms"])

    def _record(self, trainer: Trainer, step: StepResult, what: str) -> None:
        if trainer.ranks.rank:
            return
        record = {
            "step": step.run_step,
            "phase": trainer.phase,
            "objective": trainer.config.objective,
            "what": what,
            "updated": not step.left_out,
            "losses": {name: _as_json(value) for name, value in step.losses.items()},
            "grad_norm": _as_json(step.grad_norm),
            "lr": step.lr,
            "uids": trainer.uids_of_step(step.step),
        }
        with open(self._file, "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        if self._said < _LOGGED:
            self._said += 1
            update = "its update is left out" if step.left_out else "its update is kept"
            _LOG.warning("%s; %s; samples in %s", _told(trainer, step, what), update, self._file)

    def _error(self, trainer: Trainer, step: StepResult | None) -> UserError:
        first, last = self._in_a_row[0], self._in_a_row[-1]
        key = trainer.job.key
        when = f"step {first}" if first == last else f"steps {first} to {last}"
        which = f"{when} of phase {trainer.phase} ({trainer.config.objective})"
        spikes = ", or spikes" if self._watches and step is not None and step.left_out == "spike" else ""
        if step is None:
            how = "the phase ended"
        else:
            how = f"that is more than {key}.max_skipped_steps={self._most} in a row; {_figures(step)}"
        return UserError(
            f"{key}: the losses or gradients of {which} are not finite{spikes}: {how}. Their samples are in "
            f"{self._file} (`pairmill why UID`). Lower {key}.lr or raise {key}.warmup; or leave the steps out with "
            f"{key}.skip_steps, which goes on from the newest checkpoint before them"
        )


def _as_json(value: float) -> float | str:
    """A figure as JSON has it, which knows no NaN and no infinity: these as words."""
    return value if math.isfinite(value) else str(value)


def _told(trainer: Trainer, step: StepResult, what: str) -> str:
    return f"step {step.run_step} of phase {trainer.phase} ({trainer.config.objective}): {what}: {_figures(step)}"


def _figures(step: StepResult) -> str:
    losses = ", ".join(f"{name} {value:.4g}" for name, value in step.losses.items())
    return f"{losses + ', ' if losses else ''}gradient norm {step.grad_norm:.4g}, lr {step.lr:.3g}"


def recorded_steps(folder: Path) -> list[dict[str, Any]]:
    """What the guard recorded of a finished run, without the samples."""
    file = folder / FILE
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return [{name: json.loads(line)[name] for name in ("step", "phase", "what", "updated")} for line in lines]
