"""The run's history: losses averaged over the steps between two lines, and the file the lines go to."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor

from stages.base.contract import StageContext
from stages.train.trainer.hooks import FLOPS, REPLACED, TOKENS, Hook, StepResult
from stages.train.trainer.utilisation import device_peak_flops, peak_memory

if TYPE_CHECKING:
    from stages.train.trainer.trainer import Trainer


class StepTotals:
    """Adds up the micro-batches of one optimizer step, on the device."""

    def __init__(self) -> None:
        self._values: dict[str, Tensor] = {}

    def add(self, losses: Mapping[str, Tensor], tokens: Tensor, replaced: int, flops: float, accumulation: int) -> None:
        """One micro-batch: losses, of which those count that are scalars, tokens, replaced samples and model FLOPs."""
        values = {name: loss.detach().double() / accumulation for name, loss in losses.items() if loss.numel() == 1}
        values[TOKENS] = tokens.double()
        values[REPLACED] = torch.full_like(values[TOKENS], replaced)
        values[FLOPS] = torch.full_like(values[TOKENS], flops)
        values = {name: value.reshape(()) for name, value in values.items()}
        self._values = {name: self._values[name] + value for name, value in values.items()} if self._values else values

    def over_ranks(self) -> tuple[list[str], Tensor]:
        """Names in order, and float64 [names], the sums over all ranks. Every rank calls this."""
        names = sorted(self._values)
        totals = torch.stack([self._values[name] for name in names])
        dist.all_reduce(totals)
        return names, totals


class MetricsLog(Hook):
    """Writes a line to the history every `log_every` steps: means of the losses since the last line, and speeds."""

    name = "metrics"

    def __init__(self, log_every: int, global_batch: int, device: torch.device, precision: str = "fp32") -> None:
        self._log_every = log_every
        self._global_batch = global_batch
        self._device = device
        self._peak_flops = device_peak_flops(device, precision)
        self._names: list[str] = []
        self._sums: Tensor | None = None
        """float64 [names]: totals of the steps since the last line."""
        self._steps = 0
        """Number of these steps."""
        self._left_out = 0
        """Number of steps beside them that were left out."""
        self._timed = 0
        """Of these steps, those that this process took: a restarted one loads the others from a checkpoint."""
        self._since = time.monotonic()
        self._latest: StepResult | None = None
        self.first_loss: float | None = None
        self.last_loss: float | None = None

    def on_phase_start(self, trainer: Trainer) -> None:
        """Start the clock."""
        self._since = time.monotonic()

    def on_step(self, trainer: Trainer, step: StepResult) -> None:
        """Add the step, unless it was left out; log where a line is due."""
        self._latest = step
        if step.left_out:
            self._left_out += 1
        else:
            if self._sums is None:
                self._names = list(step.names)
                self._sums = torch.zeros_like(step.totals)
            self._sums += step.totals
            self._steps += 1
            self._timed += 1
        if step.step % self._log_every == 0 or step.last:
            self._log(trainer, step)

    def on_phase_end(self, trainer: Trainer) -> None:
        """Log the steps since the last line, if the phase was stopped between two."""
        if self._latest is not None:
            self._log(trainer, self._latest)

    def state_dict(self) -> dict[str, Any]:
        """The window under way, and the first and last mean loss that was logged."""
        window = dict(zip(self._names, self._sums.tolist(), strict=True)) if self._sums is not None else {}
        return {
            "window": window if self._steps else {},
            "window_steps": self._steps,
            "left_out": self._left_out,
            "first_loss": self.first_loss,
            "last_loss": self.last_loss,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the window of a checkpoint."""
        window = state["window"]
        if window:
            self._names = sorted(window)
            sums = [window[name] for name in self._names]
            self._sums = torch.tensor(sums, dtype=torch.float64, device=self._device)
        self._steps = state["window_steps"]
        self._left_out = state.get("left_out", 0)  # as written before steps were left out
        self.first_loss, self.last_loss = state["first_loss"], state["last_loss"]

    def _log(self, trainer: Trainer, step: StepResult) -> None:
        now = time.monotonic()
        skipped = {"skipped_steps": float(self._left_out)}
        self._left_out, self._latest = 0, None
        if not self._steps:
            self._since = now
            trainer.log({"lr": step.lr, **skipped})
            return
        assert self._sums is not None
        totals = dict(zip(self._names, self._sums.tolist(), strict=True))
        tokens, replaced, flops = totals.pop(TOKENS), totals.pop(REPLACED), totals.pop(FLOPS)
        seconds = max((now - self._since) / (max(self._timed, 1) / self._steps), 1e-9)
        losses = {name: total / step.world_size / self._steps for name, total in totals.items()}
        metrics = {**losses, "lr": step.lr, "replaced_samples": replaced, **skipped}
        if not step.left_out:
            metrics["grad_norm"] = step.grad_norm
        metrics["samples_per_s"] = self._global_batch * self._steps / seconds
        metrics["tokens_per_s"] = tokens / seconds
        if flops:
            metrics["model_flops_per_s"] = flops / seconds
            if self._peak_flops is not None:
                metrics["mfu"] = flops / seconds / (step.world_size * self._peak_flops)
        if (memory := peak_memory(self._device)) is not None:
            metrics["peak_gpu_bytes"] = memory
        self._sums.zero_()
        self._steps = self._timed = 0
        self._since = now
        self.last_loss = metrics["loss"]
        if self.first_loss is None:
            self.first_loss = metrics["loss"]
        trainer.log(metrics)


class History:
    """The metrics file of a stage's scratch folder, in the format of :meth:`stages.base.contract.StageContext.log`.

    Written by rank 0; a metric of a step stands in it once, even after a kill and a resume.
    """

    def __init__(self, scratch: str) -> None:
        self._context = StageContext(inputs={}, out=Path(scratch), intermediate=Path(scratch), scratch=scratch)
        self.path = self._context.metrics_file

    def log(self, step: int, metrics: Mapping[str, float], total: int | None = None) -> None:
        """Append one step's metrics; `total` is the number of steps the run will have."""
        self._context.log(step, metrics, time.time(), total)

    def truncate(self, step: int) -> None:
        """Drop lines after `step`, which will be written again, and a last line that a kill cut short."""
        if not self.path.exists():
            return
        kept = [line for line in self.path.read_bytes().splitlines(keepends=True) if _step(line) <= step]
        partial = self.path.with_name(self.path.name + ".part")
        partial.write_bytes(b"".join(kept))
        os.replace(partial, self.path)


def _step(line: bytes) -> float:
    return int(json.loads(line)["step"]) if line.endswith(b"\n") else float("inf")
