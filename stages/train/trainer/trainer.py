"""The training loop every rank runs: phases in order, each with its own DeepSpeed engine.

Ray Train calls :func:`train_loop` on each worker. What it needs to go on after a kill is on disk: finished phases leave
their weights, the phase under way its newest checkpoint (see checkpoint.py). The data need no state (see order.py) and
random numbers are seeded anew at each micro-step, so a run that was killed equals one that was not, bit for bit on CPU.
"""

from __future__ import annotations

import gc
import logging
import os
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from stages.base.contract import UserError
from stages.train.config import PhaseConfig
from stages.train.data.dataset import Dataset
from stages.train.data.loader import Loader
from stages.train.job import TrainingJob
from stages.train.open_dataset import open_dataset
from stages.train.trainer.batching import accumulation_steps, phase_steps
from stages.train.trainer.checkpoint import (
    Progress,
    finished_phases,
    latest_checkpoint,
    load_checkpoint,
    phase_folder,
    read_progress,
    save_checkpoint,
    write_progress,
)
from stages.train.trainer.deepspeed_engine import deepspeed_config
from stages.train.trainer.history import History
from stages.train.trainer.metrics import Meter
from stages.train.trainer.replaced_samples import Replacements
from stages.train.trainer.schedule import learning_rate
from stages.train.trainer.weights import parameter_groups, save_model


def train_loop(config: dict[str, Any]) -> None:
    """Train one rank's share of the :class:`TrainingJob` under ``config["job"]``; returns when all phases are done.

    A user's mistake is written down for the driver: Ray Train starts failed workers anew, which then return at once.
    """
    job: TrainingJob = config["job"]
    if job.mistake.exists():
        return
    try:
        _train_phases(job)
    except UserError as error:
        job.mistake.write_text(str(error), encoding="utf-8")
        raise


def _train_phases(job: TrainingJob) -> None:
    ranks = _prepare_process(job)
    dataset = open_dataset(job)
    steps = phase_steps(job.phases, job.settings.global_batch, len(dataset))
    for index in range(finished_phases(job.folder, len(job.phases)), len(job.phases)):
        _Phase(job, ranks, dataset, index, steps).run()
        gc.collect()


@dataclass(frozen=True)
class Ranks:
    """Where this process stands among all."""

    rank: int
    world_size: int
    tensor_parallel: int
    device: torch.device

    @property
    def data_rank(self) -> int:
        """Rank among those that see different samples; neighbours share one copy of the weights."""
        return self.rank // self.tensor_parallel

    @property
    def data_ranks(self) -> int:
        """Number of ranks that see different samples."""
        return self.world_size // self.tensor_parallel


def _prepare_process(job: TrainingJob) -> Ranks:
    import ray.train.torch

    torch.set_num_threads(job.threads)
    device = ray.train.torch.get_device()
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    if device.type == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    # DeepSpeed's autotuner, unused here, imports mlflow if it can: a third of the time a worker takes to start.
    unwanted = "mlflow" not in sys.modules
    if unwanted:
        sys.modules["mlflow"] = None  # type: ignore[assignment]
    import deepspeed

    if unwanted:
        del sys.modules["mlflow"]
    # On a CPU DeepSpeed would compile a shared-memory all-reduce for minutes, and hang after a build that was killed.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    context = ray.train.get_context()
    return Ranks(context.get_world_rank(), context.get_world_size(), job.tensor_parallel, device)


class _Phase:
    """One phase on one rank."""

    def __init__(self, job: TrainingJob, ranks: Ranks, dataset: Dataset, index: int, steps: list[int]) -> None:
        self.job = job
        self.ranks = ranks
        self.index = index
        self.config: PhaseConfig = job.phases[index]
        self.steps = steps[index]
        self.before, self.total = sum(steps[:index]), sum(steps)
        self.accumulation = accumulation_steps(job.settings, ranks.data_ranks, job.key)
        self.history = History(job.scratch)
        self.progress = Progress(ranks=ranks.world_size, phase=index)
        self.dtype = torch.bfloat16 if job.precision == "bf16" else torch.float32
        self.model, task = self._built()
        self.engine = self._engine(task)
        image_size = job.model.vision.image_size
        place = (ranks.data_rank, ranks.data_ranks, self.accumulation)
        mixture = getattr(job.settings, "mixture", None)  # of pretraining alone: tasks have no sources
        self.loader = Loader(dataset, job.settings, image_size, *place, special=job.special, mixture=mixture)
        self.replacements = Replacements(job.folder, ranks.data_rank, report=ranks.rank % ranks.tensor_parallel == 0)

    def _built(self) -> tuple[Any, nn.Module]:
        """The model with what it is to learn, equal on every rank."""
        from models import registry

        job = self.job
        torch.manual_seed(job.settings.seed)
        start = str(phase_folder(job.folder, self.index - 1) / "model") if self.index else job.initial
        if start is not None:
            model = registry.load(start)
        else:
            ids = job.special
            model = registry.build(job.model, pad_id=ids.pad, bos_id=ids.bos, eos_id=ids.eos)
        objective = self.config.objective
        registry.set_trainable(model, self.config.trainable or registry.used_parts(job.model, objective))
        torch.manual_seed(job.settings.seed + 1 + self.index)
        return model, registry.training_task(model, objective, self.config.settings)

    def _engine(self, task: nn.Module) -> Any:
        import deepspeed

        job = self.job
        groups = parameter_groups(task, job.settings.weight_decay)
        config = deepspeed_config(
            job.settings,
            accumulation=self.accumulation,
            precision=job.precision,
            on_gpu=self.ranks.device.type == "cuda",
            tensor_parallel=job.tensor_parallel,
            trainable=sum(weight.numel() for group in groups for weight in group["params"]),
        )
        engine, *_ = deepspeed.initialize(model=task, model_parameters=groups, config=config)
        if job.tensor_parallel > 1:
            # DeepSpeed would compare the first batch over the ranks that share weights, and fails on a dict of tensors;
            # theirs are equal by construction (`data_rank`).
            engine.first_dataloader_check.remove()
        return engine

    def run(self) -> None:
        """Go on from the newest checkpoint of this phase, if there is one, to the phase's end."""
        checkpoint = latest_checkpoint()
        if checkpoint and (found := read_progress(checkpoint)).phase == self.index:
            load_checkpoint(self.engine, checkpoint)
            self.progress = found
        if self.ranks.rank == 0:
            self.history.truncate(self.before + self.progress.step)
        self.engine.train()
        self._train()
        self._finish()

    def _train(self) -> None:
        settings, progress = self.job.settings, self.progress
        first = progress.step
        meter = Meter(self.ranks.device, progress.window, progress.window_steps)
        batches = self.loader.batches(self.before + first, self.before + self.steps)
        began = time.monotonic() - progress.seconds
        for step in range(first, self.steps):
            rate = learning_rate(settings, self.config.lr or settings.lr, step, self.steps)
            for group in self.engine.optimizer.param_groups:
                group["lr"] = rate
            logged = (step + 1) % settings.log_every == 0 or step + 1 == self.steps
            norm = None
            for micro_step in range(self.accumulation):
                batch = {name: self._placed(name, value) for name, value in next(batches).items()}
                meter.replaced += self.replacements.note(self.loader.replaced)
                self._seed(self.before + step, micro_step)
                losses = self.engine(batch)
                self.engine.backward(losses["loss"])
                if logged and micro_step + 1 == self.accumulation and settings.zero.stage == 0:
                    norm = self._plain_norm()
                self.engine.step()
                tokens = batch["prompt_mask"].sum() + batch["target_mask"].sum()
                meter.add(losses, tokens / self.job.tensor_parallel, self.accumulation)
            meter.close_step()
            progress.step, progress.seconds = step + 1, time.monotonic() - began
            if logged:
                norm = self.engine.get_global_grad_norm() if norm is None else norm
                self._log(meter, rate, norm)
            if (step + 1) % settings.checkpoint_every == 0 and step + 1 < self.steps:
                progress.window, progress.window_steps = meter.state()
                save_checkpoint(self.engine, progress, self.before + step + 1)

    def _placed(self, name: str, value: Any) -> torch.Tensor:
        return value.to(self.ranks.device, self.dtype if name == "pixels" else value.dtype, non_blocking=True)

    def _seed(self, step: int, micro_step: int) -> None:
        state = np.random.SeedSequence([self.job.settings.seed, step, micro_step, self.ranks.data_rank])
        torch.manual_seed(int(state.generate_state(1, np.uint64)[0] >> np.uint64(1)))

    def _plain_norm(self) -> float:
        # Without ZeRO DeepSpeed clips but does not keep the norm; the gradients are averaged over ranks by now.
        gradients = [w.grad for w in self.engine.module.parameters() if w.grad is not None]
        return float(torch.nn.utils.get_total_norm(gradients))

    def _log(self, meter: Meter, rate: float, norm: float | torch.Tensor | None) -> None:
        window = meter.close_window()
        samples = self.job.settings.global_batch * window.steps
        metrics = {**window.losses, "lr": rate, "grad_norm": float(norm) if norm is not None else 0.0}
        metrics["replaced_samples"] = window.replaced
        metrics["samples_per_s"] = samples / window.seconds
        metrics["tokens_per_s"] = window.tokens / window.seconds
        self.progress.last_loss = metrics["loss"]
        if self.progress.first_loss is None:
            self.progress.first_loss = metrics["loss"]
        if self.ranks.rank == 0:
            self.history.log(self.before + self.progress.step, metrics, self.total)

    def _finish(self) -> None:
        """Leave the phase's weights, whole and in Hugging Face format, where the next phase and the driver look."""
        self.loader.close()
        folder = phase_folder(self.job.folder, self.index)
        partial = folder.with_name(folder.name + ".part")
        if self.ranks.rank == 0:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        dist.barrier()
        save_model(self.engine, self.model, Path(partial, "model"), self.job)
        if self.ranks.rank == 0:
            self.progress.window, self.progress.window_steps = {}, 0
            write_progress(partial, self.progress)
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(partial, folder)
        dist.barrier()
        self.engine.destroy()
