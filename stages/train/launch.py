"""Training from the driver's side: start the workers, wait, and copy their results into the artifact."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from models.registry import count_parameters
from stages.base.artifact import Artifact
from stages.base.contract import Inputs, StageContext, UserError
from stages.train.card import card
from stages.train.config import OptimizationConfig
from stages.train.job import PairSource, TrainingJob, check_frozen_shards
from stages.train.model_folder import complete
from stages.train.resume import go_on_from_earlier
from stages.train.trainer.checkpoint import (
    TrainState,
    discard_torn_snapshot,
    finished_phases,
    newest_on_disk,
    phase_folder,
    read_state,
)
from stages.train.trainer.guard import recorded_steps
from stages.train.trainer.replaced_samples import replaced_summary
from stages.train.trainer.schedule import accumulation_steps

_LOG = logging.getLogger(__name__)
RUN = "ray"
"""Ray Train's folder in the folder of a run."""

#: What `train.json` of a fine-tuned model repeats of the one it started from.
_OF_PRETRAINED = (
    "phases",
    "steps",
    "samples_seen",
    "seconds",
    "world_size",
    "precision",
    "started_from_weights",
    "recipe",
    "data",
)


def train(job: TrainingJob, context: StageContext) -> None:
    """Run a job to its end and write `model/`, `tokenizer/`, `history.jsonl` and `train.json` below ``context.out``.

    `model/` is complete in itself: weights, tokenizer, preprocessing and model card.

    Needs Ray to be running. Goes on where an earlier, killed call with the same scratch folder stopped. Raises
    UserError for the user's mistakes, and ray.train.TrainingFailedError when workers fail more often than allowed.
    """
    workers = int(context.cluster["workers"])
    if workers % job.tensor_parallel:
        raise UserError(
            f"cluster.workers={workers} is not a multiple of cluster.tensor_parallel={job.tensor_parallel}: change one"
        )
    accumulation_steps(job.settings, workers // job.tensor_parallel, job.key)
    check_frozen_shards(job.key, job.settings, workers // job.tensor_parallel)
    if not job.folder.exists():
        go_on_from_earlier(job, context.earlier, RUN)
    job.folder.mkdir(parents=True, exist_ok=True)
    if finished_phases(job.folder, len(job.phases)) < len(job.phases) or not job.model_folder.exists():
        _check_shards(job)
        _fit(job, context.cluster, workers)
    _publish(job, context)


def _fit(job: TrainingJob, cluster: Mapping[str, Any], workers: int) -> None:
    run = job.folder / RUN
    discard_torn_snapshot(run)
    _check_ranks(run, workers)
    # The controller polls its workers at this interval; its default of 2 s would be added to every start and end.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    from ray.train.v2.api.config import CheckpointConfig, FailureConfig, LoggingConfig, RunConfig, ScalingConfig
    from ray.train.v2.api.exceptions import TrainingFailedError
    from ray.train.v2.torch.torch_trainer import TorchTrainer

    from stages.train.trainer.trainer import train_loop

    gpus = int(cluster["gpus_per_worker"])
    resources = {"CPU": float(cluster["cpus_per_worker"]), **({"GPU": float(gpus)} if gpus else {})}
    trainer = TorchTrainer(
        train_loop,
        train_loop_config={"job": job},
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=bool(gpus), resources_per_worker=resources),
        run_config=RunConfig(
            name=RUN,
            storage_path=str(job.folder),
            failure_config=FailureConfig(max_failures=int(cluster["max_failures"])),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
            logging_config=LoggingConfig(log_level="WARNING"),
        ),
    )
    job.user_error.unlink(missing_ok=True)
    try:
        with _sigint_restored():
            trainer.fit()
    except SystemExit:  # Ray Train's answer to Ctrl-C, once it has stopped the workers
        raise KeyboardInterrupt from None
    except TrainingFailedError:
        if not job.user_error.exists():
            raise
    if job.user_error.exists():
        raise UserError(job.user_error.read_text(encoding="utf-8"))


def _check_shards(job: TrainingJob) -> None:
    """Raise UserError where a shard is missing or too short, unless the job may skip it. Reads no data."""
    if not isinstance(job.source, PairSource):
        return
    from stages.shard.reader import ShardReader
    from stages.shard.verify import missing_or_short

    damaged = missing_or_short(ShardReader(job.source.shards))
    if not damaged:
        return
    listed = "; ".join(map(str, damaged[:3])) + (f"; and {len(damaged) - 3} more" if len(damaged) > 3 else "")
    if job.settings.damaged_shards == "stop":
        raise UserError(
            f"{listed}: write the shards again (delete their artifact and run `pairmill run shard`), or set "
            f"{job.key}.damaged_shards=skip to train without their samples; `pairmill check-shards` gives details"
        )
    _LOG.warning("%s: samples of these shards will be replaced", listed)


def _check_ranks(run: Path, workers: int) -> None:
    """Raise UserError where the newest checkpoint was saved by another number of ranks."""
    newest = newest_on_disk(run)
    if newest and (ranks := read_state(newest).ranks) != workers:
        raise UserError(
            f"{newest}: this checkpoint was saved by {ranks} training workers and cannot go on with {workers}: "
            f"set cluster.workers={ranks}, or delete {run.parent} to train from the start"
        )


@contextmanager
def _sigint_restored() -> Iterator[None]:
    """Restore the handler of Ctrl-C, which `fit` replaces."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


def _publish(job: TrainingJob, context: StageContext) -> None:
    out = context.out
    phases = [read_state(phase_folder(job.folder, i)) for i in range(len(job.phases))]
    shutil.copytree(job.model_folder, out / "model")
    tokenizer = out / "tokenizer"
    tokenizer.mkdir()
    for file in sorted(Path(job.tokenizer).glob("*token*.json")):
        shutil.copyfile(file, tokenizer / file.name)
    history = Path(job.scratch, "metrics.jsonl")
    if not history.exists():
        _LOG.warning("%s is lost: the history is empty; the model is what it would be", history)
        history.touch()
    shutil.copyfile(history, out / "history.jsonl")
    record = train_record(job, phases, context.inputs)
    (out / "train.json").write_text(json.dumps(record, indent=2) + "\n")
    described = json.loads((out / "model" / "config.json").read_text(encoding="utf-8"))
    complete(out / "model", tokenizer, record["preprocessing"], card(record, described))


def train_record(job: TrainingJob, phases: list[TrainState], inputs: Inputs) -> dict[str, Any]:
    """The content of a finished run's `train.json`. It names no path, and no source: some may be private."""
    settings = job.settings
    task = job.key.removeprefix("tasks.") if job.key.startswith("tasks.") else None
    record: dict[str, Any] = {
        "phases": [
            {
                "objective": phase.objective,
                "steps": done.step,
                "first_loss": done.hooks["metrics"]["first_loss"],
                "last_loss": done.hooks["metrics"]["last_loss"],
                "seconds": round(done.seconds, 3),
            }
            for phase, done in zip(job.phases, phases, strict=True)
        ],
        "steps": sum(done.step for done in phases),
        "samples_seen": sum(done.step for done in phases) * settings.global_batch,
        "seconds": round(sum(done.seconds for done in phases), 3),
        "world_size": phases[-1].ranks,
        "precision": job.precision,
        "replaced": replaced_summary(job.folder),
        "unusual_steps": recorded_steps(job.folder),
        "prompt": getattr(job.source, "prompt", ""),
        "preprocessing": {
            "image_size": job.model.vision.image_size,
            "mean": list(settings.pixel_statistics[0]),
            "std": list(settings.pixel_statistics[1]),
        },
        "task": task,
        "parameters": count_parameters(job.model),
        "started_from_weights": list(job.model.initialise_from.folders),
        "recipe": _recipe(job),
        "data": [
            {
                "role": role,
                "stage": artifact.manifest.get("stage", role),
                "fingerprint": artifact.fingerprint,
                "counts": artifact.counts,
            }
            for role, artifacts in inputs.items()
            for artifact in artifacts
        ],
    }
    if job.initial is not None and inputs.get("model"):
        (model,) = inputs["model"]
        if "train.json" in model.names():
            earlier = model.read_json("train.json")
            record["pretrained"] = {key: earlier[key] for key in _OF_PRETRAINED if key in earlier}
            record["pretrained"]["replaced"] = {"samples": earlier.get("replaced", {}).get("samples", 0)}
    return record


def _recipe(job: TrainingJob) -> dict[str, Any]:
    """The settings of the run, by the fields that every run has: a task's others name files."""
    dumped = job.settings.model_dump(mode="json", include=set(OptimizationConfig.model_fields))
    mixture = getattr(job.settings, "mixture", None)
    return {
        **dumped,
        **({"mixture": f"{len(mixture)} sources by weight"} if mixture else {}),
        "tensor_parallel": job.tensor_parallel,
        "phases": [phase.model_dump(mode="json") for phase in job.phases],
    }


def summary(artifact: Artifact) -> dict[str, float]:
    """First and last loss of the last phase, the size of the run, and samples replaced, for MLflow."""
    record = artifact.read_json("train.json")
    last = record["phases"][-1]
    figures = {"first_loss": last["first_loss"], "last_loss": last["last_loss"]}
    figures["replaced_samples"] = float(record.get("replaced", {}).get("samples", 0))
    return {**figures, **{key: float(record[key]) for key in ("steps", "samples_seen", "seconds")}}
