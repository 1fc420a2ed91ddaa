"""Hooks: what happens beside the training loop (metrics, checkpoints, ...), one concern per class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from stages.train.data.transform import ReplacedSample
    from stages.train.trainer.trainer import Trainer

TOKENS, REPLACED, FLOPS = "tokens", "replaced", "flops"
"""Names of a step's totals that are no losses."""


@dataclass(frozen=True)
class StepResult:
    """One optimizer step. All but `replaced_here` is over all ranks and hence equal on all of them."""

    step: int
    """Optimizer steps of the phase so far, this one included."""
    run_step: int
    """The same over all phases; what a line of the history is numbered by."""
    last: bool
    """Whether the phase has no further step."""
    lr: float
    """Learning rate of the step."""
    names: Sequence[str]
    """What `totals` holds: the losses that the objective reports, ``tokens``, ``replaced`` and ``flops``;
    sorted."""
    totals: Tensor
    """float64 [names], on the rank's device: sums over ranks; losses are means over a rank's micro-batches."""
    world_size: int
    """Ranks that `totals` sums over."""
    replaced_here: Sequence[ReplacedSample]
    """Damaged samples that this rank replaced."""
    gradient_norm: Callable[[], float]
    """Computes :attr:`grad_norm`."""
    left_out: str = ""
    """Why the weights were not updated: ``"not finite"`` (a loss or the gradients), ``"spike"`` of the loss above
    `skip_spikes`, ``"skip_steps"`` (then nothing was computed, and `losses` is empty); empty where they were."""

    @cached_property
    def losses(self) -> dict[str, float]:
        """Means over the global batch, by name; ``loss`` is what is minimised. Waits for the device."""
        totals = self._by_name
        return {name: totals[name] / self.world_size for name in self.names if name not in (TOKENS, REPLACED, FLOPS)}

    @property
    def tokens(self) -> float:
        """Text tokens in the global batch. Waits for the device."""
        return self._by_name[TOKENS]

    @property
    def replaced(self) -> float:
        """Samples of the global batch that were replaced because they are damaged. Waits for the device."""
        return self._by_name[REPLACED]

    @cached_property
    def grad_norm(self) -> float:
        """Global norm of the gradients before clipping; infinite or NaN where they are not finite, 0 where none were
        taken. Waits for the device."""
        return self.gradient_norm()

    @cached_property
    def _by_name(self) -> dict[str, float]:
        return dict(zip(self.names, self.totals.tolist(), strict=True))


class Hook:
    """Base class of hooks. Every rank makes its own for each phase; all ranks call the same method at the same time.

    So a hook may use collective operations, and must decide alike on all ranks: by the step, or by figures that are
    equal on all (see :class:`StepResult`), not by the clock or by what one rank sees.
    """

    @property
    def name(self) -> str:
        """Names the hook's state in checkpoints; no two hooks of a run have the same."""
        return type(self).__name__

    def on_phase_start(self, trainer: Trainer) -> None:
        """Called before the first step, after a checkpoint was loaded if there was one."""

    def on_step(self, trainer: Trainer, step: StepResult) -> None:
        """Called after every optimizer step. May call `trainer.log`, `request_checkpoint` and `stop_phase`."""

    def on_checkpoint(self, trainer: Trainer, folder: Path) -> None:
        """Called while a checkpoint is written to `folder`, where the hook may put files of its own."""

    def on_phase_end(self, trainer: Trainer) -> None:
        """Called after the last step, with the engine still there; then the phase's weights are saved."""

    def on_exception(self, trainer: Trainer, error: BaseException) -> None:
        """Called on each rank whose loop raises. Other ranks may have ended: no collective operations here.

        The error is raised again afterwards; an exception of the hook is logged and goes no further.
        """

    def state_dict(self) -> dict[str, Any]:
        """What the hook needs to go on from a checkpoint, for JSON; that of rank 0 is saved."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what :meth:`state_dict` returned. Called before `on_phase_start`, only if it returned anything."""
