"""Means of the losses between two lines of the history, over ranks and accumulation steps alike."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

_TOKENS, _REPLACED = "tokens", "replaced"


@dataclass(frozen=True)
class Window:
    """The steps since the last line."""

    losses: dict[str, float]
    """Means, by name."""
    tokens: float
    """Text tokens seen by all ranks."""
    replaced: float
    """Samples replaced because they were damaged, over all ranks."""
    steps: int
    seconds: float
    """Time these steps took in this process, after a restart only those since."""


class Meter:
    """Adds up what the training task reports. Sums are agreed over ranks at each step, so they can be checkpointed."""

    def __init__(self, device: torch.device, sums: Mapping[str, float], steps: int) -> None:
        self._device = device
        self._names = sorted(sums)
        self._sums = torch.tensor([sums[name] for name in self._names], dtype=torch.float64, device=device)
        self._step: Tensor | None = None
        self.replaced = 0.0
        """Samples replaced since the last micro-step was added; whoever loads adds to it."""
        self._steps = steps
        self._seen = 0
        self._since = time.monotonic()

    def add(self, losses: Mapping[str, Tensor], tokens: Tensor, accumulation: int) -> None:
        """One micro-step: scalar losses, and its number of tokens."""
        values = {name: loss.detach().double() / accumulation for name, loss in losses.items() if loss.numel() == 1}
        values[_TOKENS] = tokens.double()
        values[_REPLACED] = torch.full_like(values[_TOKENS], self.replaced)
        self.replaced = 0.0
        if not self._names:
            self._names = sorted(values)
            self._sums = torch.zeros(len(self._names), dtype=torch.float64, device=self._device)
        row = torch.stack([values[name].reshape(()) for name in self._names])
        self._step = row if self._step is None else self._step + row

    def close_step(self) -> None:
        """End an optimizer step. Every rank calls this."""
        assert self._step is not None
        dist.all_reduce(self._step)
        self._sums += self._step
        self._step = None
        self._steps += 1
        self._seen += 1

    def close_window(self) -> Window:
        """What was gathered since the last call; starts anew."""
        totals = dict(zip(self._names, self._sums.tolist(), strict=True))
        now = time.monotonic()
        tokens, replaced = totals.pop(_TOKENS), totals.pop(_REPLACED)
        ranks = dist.get_world_size()
        share = self._seen / self._steps  # of the window's steps, those this process timed
        window = Window(
            losses={name: total / ranks / self._steps for name, total in totals.items()},
            tokens=tokens,
            replaced=replaced,
            steps=self._steps,
            seconds=max((now - self._since) / share, 1e-9),
        )
        self._sums.zero_()
        self._steps = self._seen = 0
        self._since = now
        return window

    def state(self) -> tuple[dict[str, float], int]:
        """Sums so far and the number of their steps, equal on all ranks."""
        return dict(zip(self._names, self._sums.tolist(), strict=True)), self._steps
