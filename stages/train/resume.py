"""Going on from what a run left that passed over fewer steps (`skip_steps`)."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from stages.train.config import OptimizationConfig
from stages.train.job import TrainingJob
from stages.train.trainer.checkpoint import PROGRESS, phase_folder, read_state

_LOG = logging.getLogger(__name__)
S = TypeVar("S", bound=OptimizationConfig)


def with_fewer_skipped(settings: S) -> dict[str, S]:
    """The same settings with only the first of the skipped steps, by the number of the first step that differs."""
    steps = settings.skip_steps
    return {str(steps[n]): settings.model_copy(update={"skip_steps": steps[:n]}) for n in range(len(steps))}


def go_on_from_earlier(job: TrainingJob, earlier: Mapping[str, str], run: str) -> None:
    """Bring finished phases and the newest usable checkpoint from an earlier run's scratch folder, if there is one.

    `earlier`: scratch folders by the first step that the run there did not pass over and this one does (counted over
    all phases); what it had trained before that step is what this run would have trained. `run`: Ray Train's folder.
    """
    best: tuple[int, Path] | None = None
    for first, scratch in earlier.items():
        folder = Path(scratch, job.folder.name)
        for progress in [*folder.glob(f"phase-*/{PROGRESS}"), *folder.glob(f"{run}/step-*/{PROGRESS}")]:
            done = read_state(progress.parent).run_step
            if done is None or done >= int(first) or progress.parent.suffix == ".part":
                continue
            if best is None or done > best[0]:
                best = done, progress.parent
    if best is None:
        return
    done, newest = best
    folder = newest.parent if newest.name.startswith("phase-") else newest.parents[1]
    partial = job.folder.with_name(job.folder.name + ".part")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for phase in range(read_state(newest).phase + (newest.parent == folder)):
        finished = phase_folder(folder, phase)
        shutil.copytree(finished, phase_folder(partial, phase), copy_function=_link)
    for record in folder.glob("*.jsonl"):
        shutil.copyfile(record, partial / record.name)
    if newest.parent != folder:
        shutil.copytree(newest, partial / run / newest.name, copy_function=_link)
    history = folder.parent / "metrics.jsonl"
    if history.exists():
        shutil.copyfile(history, Path(job.scratch, history.name))
    os.replace(partial, job.folder)
    _LOG.warning("goes on from step %s of the run without the skipped steps (%s)", done, newest)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copyfile(source, target)
