"""The training loop of one rank: phases in turn, each with a DeepSpeed engine of its own; the rest are hooks.

Ray Train calls :func:`train_loop` on each worker. What it needs to go on after a kill is on disk: finished phases leave
their weights, the phase under way its newest checkpoint (see checkpoint.py). The data need no state (see
data/shuffle.py) and random numbers are seeded anew at each micro-step, so a run that was killed equals one that was
not, bit for bit on CPU.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import Any

import numpy as np
import torch

from stages.base.contract import UserError
from stages.train.config import PhaseConfig
from stages.train.data.dataset import Dataset
from stages.train.data.loader import Loader
from stages.train.data.phases import first_data_step, samples_by_phase
from stages.train.data.transform import ReplacedSample
from stages.train.job import TrainingJob, open_dataset
from stages.train.trainer.checkpoint import (
    PeriodicCheckpoints,
    TrainState,
    finished_phases,
    latest_checkpoint,
    load_engine,
    new_checkpoint,
    new_phase_folder,
    read_state,
    save_engine,
)
from stages.train.trainer.construction import construct, release, save_phase_weights
from stages.train.trainer.deepspeed_engine import build_engine, unclipped_gradient_norm
from stages.train.trainer.device_batches import DeviceBatches
from stages.train.trainer.export import export_model
from stages.train.trainer.guard import StepGuard, admitted
from stages.train.trainer.hooks import FLOPS, REPLACED, TOKENS, Hook, StepResult
from stages.train.trainer.metrics import History, MetricsLog, StepTotals
from stages.train.trainer.ranks import RankInfo, set_up_process
from stages.train.trainer.replaced_samples import ReplacedSamplesRecord
from stages.train.trainer.schedule import accumulation_steps, learning_rate, phase_steps
from stages.train.trainer.utilisation import MicroBatchFlops

_LOG = logging.getLogger(__name__)


def train_loop(config: dict[str, Any]) -> None:
    """Train one rank's share of the :class:`TrainingJob` under ``config["job"]``, then write the model.

    A UserError is written to a file for the driver: Ray Train restarts failed workers, which then return at once.
    """
    job: TrainingJob = config["job"]
    if job.user_error.exists():
        return
    try:
        ranks = set_up_process(job)
        dataset = open_dataset(job)
        samples = samples_by_phase(dataset, job.needs_texts)
        steps = phase_steps(job.phases, job.settings.global_batch, samples)
        check_skipped(job, steps)
        for phase in range(finished_phases(job.folder, len(job.phases)), len(job.phases)):
            Trainer(job, ranks, dataset, phase, steps).train()
        if not job.model_folder.exists():
            export_model(job, ranks)
    except UserError as error:
        job.user_error.write_text(str(error), encoding="utf-8")
        raise


def check_skipped(job: TrainingJob, steps: Sequence[int]) -> None:
    """Raise UserError where `skip_steps` names one beyond the phases' steps, or leaves a phase none."""
    skipped = set(job.settings.skip_steps)
    total = 0
    for phase, number in enumerate(steps):
        if skipped.issuperset(range(total + 1, total + number + 1)):
            raise UserError(
                f"{job.key}.skip_steps leaves phase {phase} ({job.phases[phase].objective}) no step: leave some in"
            )
        total += number
    if skipped and max(skipped) > total:
        raise UserError(f"{job.key}.skip_steps: step {max(skipped)} is beyond the last one, {total}")


def make_hooks(job: TrainingJob, ranks: RankInfo) -> dict[str, Hook]:
    """The hooks of a phase by name, in the order in which they are called. Raises ValueError for two of one name."""
    settings = job.settings
    hooks: list[Hook] = [
        ReplacedSamplesRecord(job.folder, ranks),
        MetricsLog(settings.log_every, settings.global_batch, ranks.device, job.precision),
        StepGuard(job.folder, settings.max_skipped_steps, settings.spike_deviations, settings.skip_spikes is not None),
        PeriodicCheckpoints(settings.checkpoint_every),
        *(make() for make in job.hooks),
    ]
    names = [hook.name for hook in hooks]
    if len(set(names)) < len(names):
        raise ValueError(f"two hooks have the same name: {', '.join(names)}")
    return dict(zip(names, hooks, strict=True))


class Trainer:
    """Trains one phase on one rank. Hooks may read all its attributes."""

    def __init__(self, job: TrainingJob, ranks: RankInfo, dataset: Dataset, phase: int, steps: list[int]) -> None:
        """`steps`: optimizer steps of every phase of the job."""
        self.job = job
        self.ranks = ranks
        self.phase = phase
        """Number of the phase."""
        self.config: PhaseConfig = job.phases[phase]
        self.steps = steps[phase]
        """Optimizer steps of the phase."""
        self.first_step, self.total_steps = sum(steps[:phase]), sum(steps)
        """Steps of the phases before, and of all."""
        self.first_data_step = first_data_step(dataset, job.needs_texts, phase, steps)
        """Steps of the phases before that see the same samples: it goes on in their order."""
        self.accumulation = accumulation_steps(job.settings, ranks.data_ranks, job.key)
        """Micro-batches of a rank per optimizer step."""
        self.history = History(job.scratch)
        self.state = TrainState(ranks=ranks.world_size, phase=phase)
        phase_model = construct(job, phase)
        self.model = phase_model.model
        self.engine = build_engine(job, ranks, phase_model, self.accumulation)
        self.loader = Loader(
            dataset,
            job.settings,
            job.model.vision.image_size,
            ranks.data_rank,
            ranks.data_ranks,
            self.accumulation,
            special=job.special,
            mixture=getattr(job.settings, "mixture", None),  # of pretraining alone: tasks have no sources
            needs_texts=job.needs_texts[phase],
            pin_pixels=ranks.device.type == "cuda",
        )
        self._micro_batch_flops = MicroBatchFlops(job, phase, ranks.data_ranks)
        self.hooks = make_hooks(job, ranks)
        self._dtype = torch.bfloat16 if job.precision == "bf16" else torch.float32
        self._skipped = frozenset(job.settings.skip_steps)
        self._checkpoint_requested = False
        self._stopped = False

    def train(self) -> None:
        """Go on from the phase's newest checkpoint, if there is one, to the end of the phase."""
        with self._exceptions_to_hooks():
            self._resume()
            self.engine.train()
            for hook in self.hooks.values():
                hook.on_phase_start(self)

            started = time.monotonic() - self.state.seconds
            first = self.first_data_step
            with closing(self.loader.batches(first + self.state.step, first + self.steps)) as loaded:
                batches = DeviceBatches(loaded, self.loader.take_replaced, self.ranks.device, self._dtype)
                while self.state.step < self.steps and not self._stopped:
                    passed_over = self.run_step + 1 in self._skipped
                    step = self._pass_over(batches) if passed_over else self._train_step(batches)
                    self.state.seconds = time.monotonic() - started
                    for hook in self.hooks.values():
                        hook.on_step(self, step)
                    if self._checkpoint_requested and not (step.last or self._stopped):
                        self._save_checkpoint()

            for hook in self.hooks.values():
                hook.on_phase_end(self)
            self.loader.close()
            self._save_phase()
            release(self.engine)

    @property
    def run_step(self) -> int:
        """Optimizer steps done, over all phases."""
        return self.first_step + self.state.step

    def uids_of_step(self, step: int) -> list[str]:
        """The samples of the global batch of one of the phase's steps, counted from 1."""
        _, numbers = self.loader.sampler.batch(self.first_data_step + step - 1)
        return [self.loader.dataset.uid(number) for number in numbers.tolist()]

    def log(self, metrics: Mapping[str, float]) -> None:
        """Append figures of the current step to the run's history, which MLflow gets too. Only rank 0 writes."""
        if self.ranks.rank == 0:
            self.history.log(self.run_step, metrics, self.total_steps)

    def request_checkpoint(self) -> None:
        """Write a checkpoint once all hooks have seen the step; not after the phase's last. All ranks must call it."""
        self._checkpoint_requested = True

    def stop_phase(self) -> None:
        """End the phase after this step, as if it were its last. All ranks must call it at the same step."""
        self._stopped = True

    def _train_step(self, batches: DeviceBatches) -> StepResult:
        """One optimizer step over the rank's micro-batches."""
        lr = self._learning_rate()
        for group in self.engine.optimizer.param_groups:
            group["lr"] = lr
        totals = StepTotals()
        replaced: list[ReplacedSample] = []
        norm: torch.Tensor | None = None
        so_far = torch.zeros((), dtype=torch.float64, device=self.ranks.device)
        spiked = False
        for micro_step in range(self.accumulation):
            taken = batches.take()
            batch, replaced_now = taken.batch, taken.replaced
            self._seed(micro_step)
            losses = self.engine(batch)
            boundary = micro_step + 1 == self.accumulation
            so_far += losses["loss"].detach().double() / self.accumulation
            allowed = self._usual(so_far) if boundary and self.job.settings.skip_spikes is not None else None
            spiked = allowed is not None and not allowed
            self.engine.backward(losses["loss"] * admitted(losses["loss"], allowed))
            if boundary and self.job.settings.zero.stage == 0:
                norm = unclipped_gradient_norm(self.engine)
            if self.state.step + 1 < self.steps or micro_step + 1 < self.accumulation:
                batches.prefetch()  # while the device computes; `engine.step` waits for it
            self.engine.step()
            tokens = (batch["prompt_mask"].sum() + batch["target_mask"].sum()) / self.job.tensor_parallel
            counted = len(replaced_now) if self.ranks.is_first_of_data_rank else 0
            flops = self._micro_batch_flops(batch) / self.job.tensor_parallel
            totals.add(losses, tokens, counted, flops, self.accumulation)
            replaced += replaced_now
        names, sums = totals.over_ranks()
        why = "" if self.engine.was_step_applied() else "spike" if spiked else "not finite"
        return self._done(
            lr,
            names,
            sums,
            why,
            lambda: float(self.engine.get_global_grad_norm() or 0.0 if norm is None else norm),
            replaced,
        )

    def _pass_over(self, batches: DeviceBatches) -> StepResult:
        """A step of `skip_steps`: its samples are taken, and nothing is done with them."""
        lr = self._learning_rate()
        for _ in range(self.accumulation):
            batches.take()
        names = sorted([FLOPS, REPLACED, TOKENS])
        nothing = torch.zeros(len(names), dtype=torch.float64, device=self.ranks.device)
        return self._done(lr, names, nothing, "skip_steps", lambda: 0.0, [])

    def _learning_rate(self) -> float:
        """Of the next step."""
        return learning_rate(self.job.settings, self.config.lr or self.job.settings.lr, self.state.step, self.steps)

    def _done(
        self,
        lr: float,
        names: Sequence[str],
        totals: torch.Tensor,
        left_out: str,
        gradient_norm: Callable[[], float],
        replaced: Sequence[ReplacedSample],
    ) -> StepResult:
        """Count the step; what the hooks see of it."""
        self.state.step += 1
        return StepResult(
            step=self.state.step,
            run_step=self.run_step,
            last=self.state.step == self.steps,
            lr=lr,
            names=names,
            totals=totals,
            world_size=self.ranks.world_size,
            replaced_here=replaced,
            gradient_norm=gradient_norm,
            left_out=left_out,
        )

    def _usual(self, loss: torch.Tensor) -> torch.Tensor:
        """Whether a step's loss, summed up by this rank, is no spike above `skip_spikes`: the same on all ranks."""
        guard = self.hooks["guard"]
        assert isinstance(guard, StepGuard)
        assert self.job.settings.skip_spikes is not None
        mean = loss.clone()
        torch.distributed.all_reduce(mean)
        # What is not finite is no spike.
        return ~torch.isfinite(mean) | (
            mean / self.ranks.world_size <= guard.losses.bound(self.job.settings.skip_spikes)
        )

    def _seed(self, micro_step: int) -> None:
        """Seed dropout and masks by the position in the run, so that they do not depend on what ran before."""
        state = np.random.SeedSequence([self.job.settings.seed, self.run_step, micro_step, self.ranks.data_rank])
        torch.manual_seed(int(state.generate_state(1, np.uint64)[0] >> np.uint64(1)))

    def _resume(self) -> None:
        """Load the newest checkpoint if it is of this phase, and drop what the history has of later steps."""
        checkpoint = latest_checkpoint()
        if checkpoint and (state := read_state(checkpoint)).phase == self.phase:
            load_engine(self.engine, checkpoint)
            self.state = state
            for name, hook_state in state.hooks.items():
                if hook_state and name in self.hooks:
                    self.hooks[name].load_state_dict(hook_state)
        if self.ranks.rank == 0:
            self.history.truncate(self.run_step)

    def _save_checkpoint(self) -> None:
        self._checkpoint_requested = False
        with new_checkpoint(self.state, self.run_step) as folder:
            save_engine(self.engine, folder)
            for hook in self.hooks.values():
                hook.on_checkpoint(self, folder)
            self._collect_hook_states()

    def _save_phase(self) -> None:
        """Leave the weights that the phase trained where the next phase and the export look."""
        with new_phase_folder(self.job.folder, self.state) as folder:
            save_phase_weights(self.engine, self.model, self.ranks, folder)
            self._collect_hook_states()

    def _collect_hook_states(self) -> None:
        self.state.run_step = self.run_step
        states = {name: hook.state_dict() for name, hook in self.hooks.items()}
        for name, state in states.items():
            try:
                json.dumps(state)
            except TypeError as error:
                raise TypeError(f"hook {name}: its state_dict() cannot be written as JSON ({error})") from error
        self.state.hooks = {name: state for name, state in states.items() if state}

    @contextmanager
    def _exceptions_to_hooks(self) -> Iterator[None]:
        """Pass what the loop raises to all hooks, whatever any of them raises in turn, and raise it again."""
        try:
            yield
        except BaseException as error:
            for name, hook in self.hooks.items():
                try:
                    hook.on_exception(self, error)
                except Exception:  # noqa: BLE001 - logged, so that the loop's own error comes through
                    _LOG.exception("hook %s failed while it handled an exception of training", name)
            raise
