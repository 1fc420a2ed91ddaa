"""Checkpoints of a phase under way, and the weights of phases that are done.

A checkpoint is DeepSpeed's own (every rank its part of weights and optimizer states, frozen weights left out) plus
`progress.json`. It is written straight into Ray Train's run folder and reported to Ray Train, which keeps the newest
two and hands the newest back after a failed worker or a restarted driver. Frozen weights come from where the phase
began: random weights of the same seed, the initial model, or the phase before.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.train.trainer.hooks import Hook, StepResult

if TYPE_CHECKING:
    from torch import nn

    from stages.train.trainer.trainer import Trainer

PROGRESS = "progress.json"
_TAG = "deepspeed"
_METRICS = ("window", "window_steps", "first_loss", "last_loss")


@dataclass
class TrainState:
    """All the state of a phase besides weights and optimizer states; `progress.json` holds it as it is."""

    ranks: int
    """Processes that saved; DeepSpeed's checkpoints load into the same number."""
    phase: int = 0
    step: int = 0
    """Optimizer steps done in the phase."""
    run_step: int | None = None
    """The same over all phases, as the history counts; null where an earlier version saved."""
    seconds: float = 0.0
    """Spent on the phase's steps, over all starts of the run."""
    hooks: dict[str, dict[str, Any]] = field(default_factory=dict)
    """State of the hooks, by name."""


def phase_folder(run: Path, phase: int) -> Path:
    """Where a finished phase leaves its `model/` and progress."""
    return run / f"phase-{phase}"


def finished_phases(run: Path, phases: int) -> int:
    """Number of leading phases that are done."""
    return next((i for i in range(phases) if not (phase_folder(run, i) / PROGRESS).exists()), phases)


def read_state(folder: Path) -> TrainState:
    """The state that a checkpoint or a finished phase holds."""
    record = json.loads((folder / PROGRESS).read_text())
    if "hooks" not in record:  # as written before there were hooks: the metrics' state lay beside the rest
        record["hooks"] = {"metrics": {key: record.pop(key) for key in _METRICS}}
    return TrainState(**record)


def write_state(folder: Path, state: TrainState) -> None:
    """Write it at once or not at all."""
    partial = folder / (PROGRESS + ".part")
    partial.write_text(json.dumps(asdict(state)))
    os.replace(partial, folder / PROGRESS)


@contextmanager
def new_checkpoint(state: TrainState, run_step: int) -> Iterator[Path]:
    """An empty folder for a checkpoint; afterwards `state` is written there and the checkpoint reported to Ray Train.

    Every rank enters this at the same step and gets the same folder.
    """
    import ray.train
    import torch.distributed as dist
    from ray.train import Checkpoint, CheckpointUploadMode

    context = ray.train.get_context()
    name = f"step-{run_step:09d}"
    folder = Path(context.get_storage().experiment_fs_path, name)
    if context.get_world_rank() == 0:
        # What an attempt left that was killed before it could report; maybe of another number of ranks.
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    dist.barrier()
    yield folder
    dist.barrier()  # the state marks the checkpoint as complete, so it is written after all ranks' files
    if context.get_world_rank() == 0:
        write_state(folder, state)
    dist.barrier()
    ray.train.report(
        {"step": run_step},
        checkpoint=Checkpoint.from_directory(str(folder)),
        checkpoint_dir_name=name,
        checkpoint_upload_mode=CheckpointUploadMode.NO_UPLOAD,
    )


@contextmanager
def new_phase_folder(run: Path, state: TrainState) -> Iterator[Path]:
    """A folder for the weights of a finished phase, which takes its final name once `state` is written there too.

    Every rank enters this after the phase's last step and gets the same folder.
    """
    import torch.distributed as dist

    folder = phase_folder(run, state.phase)
    partial = folder.with_name(folder.name + ".part")
    if dist.get_rank() == 0:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    dist.barrier()
    yield partial
    dist.barrier()  # all ranks have written
    if dist.get_rank() == 0:
        write_state(partial, state)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(partial, folder)
    dist.barrier()


def save_engine(engine: Any, folder: Path) -> None:
    """Write a rank's part of weights that learn and of optimizer states. Every rank calls this."""
    engine.save_checkpoint(str(folder), tag=_TAG, exclude_frozen_parameters=True)


def latest_checkpoint() -> Path | None:
    """Folder of the newest checkpoint: the one Ray Train knows of, else the newest whole one in its run folder."""
    import ray.train

    checkpoint = ray.train.get_checkpoint()
    if checkpoint:
        return Path(checkpoint.path)
    return newest_on_disk(Path(ray.train.get_context().get_storage().experiment_fs_path))


def newest_on_disk(run: Path) -> Path | None:
    """The newest whole checkpoint below a run folder; `progress.json` is written when all ranks have saved."""
    return max((path.parent for path in run.glob(f"step-*/{PROGRESS}")), default=None)


def load_engine(engine: Any, folder: Path) -> None:
    """Load weights and optimizer states into a fresh engine. Raises RuntimeError when they do not fit the model."""

    def load(src: dict[str, Any], dst: nn.Module) -> None:
        frozen = {name for name, weight in dst.named_parameters(remove_duplicate=False) if not weight.requires_grad}
        missing, unexpected = dst.load_state_dict(src, strict=False)
        if unexpected or not set(missing) <= frozen:
            raise RuntimeError(
                f"{folder}: not of this model: missing {sorted(set(missing) - frozen)[:3]}, "
                f"unexpected {sorted(unexpected)[:3]}"
            )

    path, _ = engine.load_checkpoint(str(folder), tag=_TAG, custom_load_fn=load)
    if path is None:
        raise RuntimeError(f"{folder}: holds no checkpoint")


def discard_torn_snapshot(run: Path) -> None:
    """Remove Ray Train's list of checkpoints when a kill cut it short: it would fail every later start.

    Ray Train rewrites `checkpoint_manager_snapshot.json` in place at each checkpoint. The checkpoints stay.
    """
    snapshot = run / "checkpoint_manager_snapshot.json"
    if not snapshot.exists():
        return
    try:
        json.loads(snapshot.read_text())
    except ValueError:
        snapshot.unlink()


class PeriodicCheckpoints(Hook):
    """Requests a checkpoint every `checkpoint_every` steps of a phase."""

    def __init__(self, checkpoint_every: int) -> None:
        self._checkpoint_every = checkpoint_every

    def on_step(self, trainer: Trainer, step: StepResult) -> None:
        """Request one where it is due."""
        if step.step % self._checkpoint_every == 0:
            trainer.request_checkpoint()
