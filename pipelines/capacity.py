"""Whether a model can be trained on a cluster: decided within a moment, before any data is touched.

What is counted are model states, after the ZeRO paper (Rajbhandari et al. 2020, section 3.1, K = 12): per trainable
parameter in bf16 2 bytes of weight, 2 of gradient, 12 of optimizer (fp32 weight and Adam's two moments); in fp32 4, 4
and 8. A frozen parameter is its weight alone. ZeRO spreads over the data-parallel ranks the optimizer's part (stage 1),
gradients too (2), weights too (3); tensor parallelism divides all of it, and offloading moves the optimizer's part to
the hosts. Activations and buffers are not computed: a share of each memory is reserved for them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.common.config import ModelConfig
from models.registry import count_parameters
from pipelines import machine
from pipelines.cluster import ClusterConfig
from stages.base.contract import UserError
from stages.train.config import TrainConfig, ZeroConfig

CONF = Path(__file__).resolve().parents[1] / "conf"

#: Share of every memory that is reserved for activations, communication buffers and fragmentation.
ACTIVATIONS = 0.2

#: The GPU in which needs are expressed (an A100 or H100 of 80 GB).
REFERENCE_GPU = 80e9

#: precision -> bytes per parameter of weight, gradient, optimizer.
_BYTES = {"bf16": (2, 2, 12), "fp32": (4, 4, 8)}


@dataclass(frozen=True)
class Need:
    """Memory of the model states in bytes, for the phase that needs most."""

    parameters: int
    trainable: int
    zero_stage: int
    precision: str
    replicated: float
    """On every data-parallel rank."""
    sharded: float
    """Spread over the data-parallel ranks."""
    host: float
    """In the memory of the hosts, all together."""

    def per_rank(self, ranks: int, tensor_parallel: int = 1) -> float:
        """Bytes on one of `ranks` GPUs (or processes)."""
        return (self.replicated + self.sharded * tensor_parallel / ranks) / tensor_parallel

    def minimum_gpus(self, memory: float = REFERENCE_GPU, tensor_parallel: int = 1) -> int | None:
        """The smallest number of GPUs of that memory that holds it; None if no number does at this ZeRO stage."""
        room = memory * (1 - ACTIVATIONS) * tensor_parallel - self.replicated
        if room < 0 or (room == 0 and self.sharded):
            return None
        return tensor_parallel * max(1, math.ceil(self.sharded / room)) if self.sharded else tensor_parallel


def needs(model: ModelConfig, train: TrainConfig, cluster: ClusterConfig) -> dict[str, Any]:
    """What training needs, for `pairmill show --json`: counts, GB (10^9 bytes), GPUs of 80 GB."""
    need = _need(model, train, cluster.precision)
    on_gpu = _need(model, train, "bf16")
    return {
        "parameters": need.parameters,
        "trainable": need.trainable,
        "precision": need.precision,
        "zero_stage": need.zero_stage,
        "ranks": cluster.workers,
        "tensor_parallel": cluster.tensor_parallel,
        "gb_per_rank": round(need.per_rank(cluster.workers, cluster.tensor_parallel) / 1e9, 3),
        "host_gb": round(need.host / 1e9, 3),
        "gpus_of_80_gb": on_gpu.minimum_gpus(tensor_parallel=cluster.tensor_parallel),
        "share_for_activations": ACTIVATIONS,
    }


def check(model: ModelConfig, train: TrainConfig, cluster: ClusterConfig) -> None:
    """Raise UserError if the model does not fit the cluster, with needs, resources and commands that would work."""
    if cluster.workers % cluster.tensor_parallel:
        raise UserError(
            f"cluster.tensor_parallel={cluster.tensor_parallel} does not divide cluster.workers={cluster.workers};"
            " change one of them"
        )
    missing = _missing_gpus(cluster)
    if not missing and _fits(_need(model, train, cluster.precision), cluster):
        return
    raise UserError(
        "\n".join(
            [
                f"{model.name} cannot be trained on cluster {cluster.name}",
                f"  needs  {_needs_line(model, train, cluster)}",
                f"  has    {missing or _has_line(cluster)}",
                f"  type   {_advice(model, train, cluster)}",
            ]
        )
    )


def _need(model: ModelConfig, train: TrainConfig, precision: str, zero: ZeroConfig | None = None) -> Need:
    zero = zero or train.zero
    parts = count_parameters(model)
    total = sum(parts.values())
    trainable = 0
    for number, phase in enumerate(train.phases):
        unknown = sorted(set(phase.trainable or ()) - set(parts))
        if unknown:
            key = f"train.phases[{number}].trainable"
            raise UserError(f"{key}: {model.name} has no part {unknown[0]!r}; its parts are {', '.join(parts)}")
        # Null means all that the objective uses; all there are is the safe side of that.
        trainable = max(trainable, sum(parts[name] for name in phase.trainable or parts))
    weight, gradient, optimizer = _BYTES[precision]
    sizes = [(3, weight * total), (2, gradient * trainable)]
    if not zero.offload_optimizer:
        sizes.append((1, optimizer * trainable))
    return Need(
        parameters=total,
        trainable=trainable,
        zero_stage=zero.stage,
        precision=precision,
        replicated=float(sum(size for stage, size in sizes if zero.stage < stage)),
        sharded=float(sum(size for stage, size in sizes if zero.stage >= stage)),
        host=float(optimizer * trainable) if zero.offload_optimizer else 0.0,
    )


def _missing_gpus(cluster: ClusterConfig) -> str:
    """What is wrong when more GPUs are configured than exist."""
    if not cluster.gpus_per_worker:
        return ""
    if cluster.address:
        return "" if cluster.gpu_memory_gb else "GPUs of unknown size: set cluster.gpu_memory_gb"
    found = machine.gpu_memory_bytes()
    if len(found) < cluster.workers:
        return f"{len(found)} GPUs on this machine, of the {cluster.workers} that cluster.workers asks for"
    return ""


def _fits(need: Need, cluster: ClusterConfig) -> bool:
    share = 1 - ACTIVATIONS
    per_rank = need.per_rank(cluster.workers, cluster.tensor_parallel)
    if cluster.gpus_per_worker:
        if per_rank > _gpu_bytes(cluster) * share:
            return False
        return bool(cluster.address) or need.host <= machine.memory_bytes() * share
    # All ranks of a CPU run share this machine's memory; that of other machines is not known here.
    return bool(cluster.address) or per_rank * cluster.workers + need.host <= machine.memory_bytes() * share


def _gpu_bytes(cluster: ClusterConfig) -> float:
    found = [] if cluster.address else machine.gpu_memory_bytes()
    return min(found) if found else cluster.gpu_memory_gb * 1e9


def _needs_line(model: ModelConfig, train: TrainConfig, cluster: ClusterConfig) -> str:
    need = _need(model, train, "bf16")
    least = need.minimum_gpus(tensor_parallel=cluster.tensor_parallel)
    states = need.replicated + need.sharded
    line = (
        f"{_count(need.parameters)} parameters ({_count(need.trainable)} trainable);"
        f" with ZeRO-{need.zero_stage} in bf16 {states / 1e9:,.3g} GB of weights, gradients and optimizer states"
    )
    if need.host:
        line += f", {need.host / 1e9:,.3g} GB more on the hosts"
    if least is None:
        return f"{line}, of which {need.replicated / 1e9:,.3g} GB on every GPU: no number of 80 GB GPUs is enough"
    return f"{line}: at least {least} x 80 GB GPUs ({ACTIVATIONS:.0%} of each left for activations)"


def _has_line(cluster: ClusterConfig) -> str:
    if cluster.gpus_per_worker:
        return f"{cluster.workers} x {_gpu_bytes(cluster) / 1e9:.0f} GB GPUs"
    memory = f"{cluster.workers} CPU workers sharing {machine.memory_bytes() / 1e9:.0f} GB of memory"
    found = machine.gpu_memory_bytes()
    if not found:
        return f"{memory}, no GPU"
    return f"{memory}; its {len(found)} x {min(found) / 1e9:.0f} GB GPUs are not used (cluster.gpus_per_worker=0)"


def _advice(model: ModelConfig, train: TrainConfig, cluster: ClusterConfig) -> str:
    """Commands that would work, on the largest cluster first."""
    lines = []
    presets = [preset for preset in _presets() if preset.name != cluster.name and preset.gpus_per_worker]
    for stage in range(train.zero.stage, 4):
        zero = _at_stage(train.zero, stage)
        fitting = [p for p in presets if _fits(_need(model, train, p.precision, zero), p)]
        if fitting:
            override = f" ARGS=train.zero.stage={stage}" if stage != train.zero.stage else ""
            lines += [f"make pretrain MODEL={model.name} CLUSTER={preset.name}{override}" for preset in fitting]
            break
    tiny = f"{model.architecture}_tiny"
    if model.name != tiny and (CONF / "model" / f"{tiny}.yaml").exists():
        lines.append(f"make pretrain MODEL={tiny}")
    return "\n    or   ".join(lines) or "a cluster with more memory: see conf/cluster/"


def _at_stage(zero: ZeroConfig, stage: int) -> ZeroConfig:
    return ZeroConfig.model_validate({**zero.model_dump(), "stage": stage})


def _presets() -> list[ClusterConfig]:
    """The clusters of `conf/cluster`, those with most GPUs first."""
    import yaml

    found = [yaml.safe_load(path.read_text("utf-8")) for path in sorted((CONF / "cluster").glob("*.yaml"))]
    return sorted((ClusterConfig(**fields) for fields in found), key=lambda preset: -preset.workers)


def _count(number: int) -> str:
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if number >= size:
            return f"{number / size:.1f}{unit}"
    return str(number)
