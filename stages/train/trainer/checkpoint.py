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
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

PROGRESS = "progress.json"
_TAG = "deepspeed"


@dataclass
class Progress:
    """Where a run stands; all the state there is besides weights and optimizer states."""

    ranks: int
    """Processes that saved; DeepSpeed's checkpoints load into as many."""
    phase: int = 0
    step: int = 0
    """Optimizer steps done in the phase."""
    window: dict[str, float] = field(default_factory=dict)
    """Sums over the steps since the last line of the history."""
    window_steps: int = 0
    seconds: float = 0.0
    """Spent on the phase's steps, over all attempts."""
    first_loss: float | None = None
    last_loss: float | None = None


def phase_folder(run: Path, phase: int) -> Path:
    """Where a finished phase leaves its `model/` and progress."""
    return run / f"phase-{phase}"


def finished_phases(run: Path, phases: int) -> int:
    """Number of leading phases that are done."""
    return next((i for i in range(phases) if not (phase_folder(run, i) / PROGRESS).exists()), phases)


def read_progress(folder: Path) -> Progress:
    """The progress a checkpoint or a finished phase holds."""
    return Progress(**json.loads((folder / PROGRESS).read_text()))


def write_progress(folder: Path, progress: Progress) -> None:
    """Write it at once or not at all."""
    partial = folder / (PROGRESS + ".part")
    partial.write_text(json.dumps(asdict(progress)))
    os.replace(partial, folder / PROGRESS)


def save_checkpoint(engine: Any, progress: Progress, run_step: int) -> None:
    """Write a checkpoint and report it to Ray Train. Every rank calls this, at the same step."""
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
    engine.save_checkpoint(str(folder), tag=_TAG, exclude_frozen_parameters=True)
    if context.get_world_rank() == 0:
        write_progress(folder, progress)
    dist.barrier()
    ray.train.report(
        {"step": run_step},
        checkpoint=Checkpoint.from_directory(str(folder)),
        checkpoint_dir_name=name,
        checkpoint_upload_mode=CheckpointUploadMode.NO_UPLOAD,
    )


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


def load_checkpoint(engine: Any, folder: Path) -> None:
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
