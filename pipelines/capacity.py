"""Whether a model can be trained on a cluster: decided within a moment, before any data is touched.

The figures are those of `pairmill plan` (`pipelines/plan`): weights, gradients, optimizer, activations, buckets and a
reserve, at the moment of the phase that needs most.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from models.common.config import ModelConfig
from models.registry import count_parameters
from pipelines import machine
from pipelines.cluster import ClusterConfig
from pipelines.plan.options import memory_per_rank, problem, remedies, runs
from pipelines.plan.phase import PhasePlan, phases
from stages.base.contract import UserError
from stages.train.config import TrainConfig
from stages.train.job import check_frozen_shards

CONF = Path(__file__).resolve().parents[1] / "conf"

#: The GPU in which needs are expressed (an A100 or H100 of 80 GB), in bytes.
REFERENCE_GPU = 80e9

#: Numbers of GPUs that are tried, per copy of the weights.
_COUNTS = [2**power for power in range(13)]


def needs(model: ModelConfig, train: TrainConfig, cluster: ClusterConfig) -> dict[str, Any]:
    """What training needs, for `pairmill show --json`: counts, GB (10^9 bytes), GPUs of 80 GB."""
    plans = phases(model, train, cluster)
    worst = _worst(plans)
    return {
        "parameters": sum(count_parameters(model).values()),
        "trainable": max(_trainable(plan) for plan in plans),
        "precision": cluster.precision,
        "zero_stage": train.zero.stage,
        "ranks": cluster.workers,
        "tensor_parallel": cluster.tensor_parallel,
        "gb_per_rank": round(worst.gpu_bytes / 1e9, 3),
        "gb_per_rank_by_item": {name: round(size / 1e9, 3) for name, size in worst.peak.items.items()},
        "host_gb": round(max(plan.host_bytes_per_rank for plan in plans) * cluster.workers / 1e9, 3),
        "gpus_of_80_gb": minimum_gpus(model, train, cluster),
    }


def minimum_gpus(model: ModelConfig, train: TrainConfig, cluster: ClusterConfig) -> int | None:
    """The smallest power of two of 80 GB GPUs (times those that share a copy of the weights) that holds the training in
    bf16; None if none does at this ZeRO stage."""
    for count in _COUNTS:
        fields = {"workers": count * cluster.tensor_parallel, "gpus_per_worker": 1, "precision": "bf16"}
        if all(plan.fits(REFERENCE_GPU) for plan in phases(model, train, cluster.model_copy(update=fields))):
            return count * cluster.tensor_parallel
    return None


def check(model: ModelConfig, train: TrainConfig, cluster: ClusterConfig) -> None:
    """Raise UserError if the model does not fit the cluster, with needs, resources and commands that would work."""
    missing = _missing_gpus(cluster)
    why = missing or problem(model, train, cluster)
    if not why:
        check_frozen_shards("train", train, cluster.workers // cluster.tensor_parallel)
        return
    if not missing and " needs " not in f" {why} ":
        raise UserError(why)  # a number that does not divide another
    raise UserError(
        "\n".join(
            [
                f"{model.name} cannot be trained on cluster {cluster.name}: {why}",
                f"  needs  {_needs_line(model, train, cluster)}",
                f"  has    {missing or _has_line(cluster)}",
                f"  type   {_advice(model, train, cluster)}",
            ]
        )
    )


def _worst(plans: list[PhasePlan]) -> PhasePlan:
    return max(plans, key=lambda plan: plan.gpu_bytes)


def _trainable(plan: PhasePlan) -> int:
    return sum(count for part, count in plan.parts.items() if part in plan.trainable)


def _missing_gpus(cluster: ClusterConfig) -> str:
    """What is wrong when more GPUs are configured than exist."""
    if not cluster.gpus_per_worker:
        return ""
    if cluster.address:
        return "" if cluster.gpu_memory_gb else "GPUs of unknown size: set cluster.gpu_memory_gb"
    gpu_memory = machine.gpu_memory_bytes()
    if len(gpu_memory) < cluster.workers:
        return f"{len(gpu_memory)} GPUs on this machine, of the {cluster.workers} that cluster.workers asks for"
    return ""


def _needs_line(model: ModelConfig, train: TrainConfig, cluster: ClusterConfig) -> str:
    plans = phases(model, train, cluster)
    worst = _worst(plans)
    items = sorted(worst.peak.items.items(), key=lambda item: -item[1])
    parts = ", ".join(f"{name} {size / 1e9:,.3g}" for name, size in items[:4] if size)
    line = (
        f"{_count(sum(count_parameters(model).values()))} parameters ({_count(max(map(_trainable, plans)))} trainable);"
        f" with ZeRO-{train.zero.stage} and micro-batch {train.micro_batch} {worst.gpu_bytes / 1e9:,.3g} GB on each of"
        f" {cluster.workers} ranks ({parts} GB)"
    )
    least = minimum_gpus(model, train, cluster)
    if least is None:
        return f"{line}: no number of 80 GB GPUs is enough"
    return f"{line}; {least} x 80 GB GPUs would do"


def _has_line(cluster: ClusterConfig) -> str:
    if cluster.gpus_per_worker:
        return f"{cluster.workers} x {memory_per_rank(cluster) / 1e9:.0f} GB GPUs"
    memory = f"{cluster.workers} CPU workers sharing {machine.memory_bytes() / 1e9:.0f} GB of memory"
    gpu_memory = machine.gpu_memory_bytes()
    if not gpu_memory:
        return f"{memory}, no GPU"
    gpus = f"{len(gpu_memory)} x {min(gpu_memory) / 1e9:.0f} GB GPUs"
    return f"{memory}; its {gpus} are not used (cluster.gpus_per_worker=0)"


def _advice(model: ModelConfig, train: TrainConfig, cluster: ClusterConfig) -> str:
    """Commands that would work: with the recipe changed, on another cluster, with another model."""
    lines = []
    make = f"make pretrain MODEL={model.name}"
    if cluster.gpus_per_worker and not _missing_gpus(cluster):
        for change in remedies(model, train, cluster, most=2):
            lines.append(f'{make} CLUSTER={cluster.name} ARGS="{" ".join(change)}"')
    for preset in _presets():
        if preset.name == cluster.name or not preset.gpus_per_worker:
            continue
        if runs(model, train, preset):
            lines.append(f"{make} CLUSTER={preset.name}")
        elif changes := remedies(model, train, preset, most=1):
            lines.append(f'{make} CLUSTER={preset.name} ARGS="{" ".join(changes[0])}"')
    tiny = f"{model.architecture}_tiny"
    if model.name != tiny and (CONF / "model" / f"{tiny}.yaml").exists():
        lines.append(f"make pretrain MODEL={tiny}")
    return "\n    or   ".join(lines) or "a cluster with more memory: see conf/cluster/"


def _presets() -> list[ClusterConfig]:
    """The clusters of `conf/cluster`, those with most GPUs first."""
    import yaml

    presets = [yaml.safe_load(path.read_text("utf-8")) for path in sorted((CONF / "cluster").glob("*.yaml"))]
    return sorted((ClusterConfig(**fields) for fields in presets), key=lambda preset: -preset.workers)


def _count(number: int) -> str:
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if number >= size:
            return f"{number / size:.1f}{unit}"
    return str(number)
