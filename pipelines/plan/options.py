"""Other settings of the same training: the largest micro-batch, where the weights may lie, and what to change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from models.common.config import ModelConfig
from models.registry import spec
from pipelines import machine
from pipelines.cluster import ClusterConfig
from pipelines.plan import hardware
from pipelines.plan.phase import PhasePlan, phases
from stages.base.contract import UserError
from stages.train.config import TrainConfig
from stages.train.job import check_frozen_shards, check_pretraining
from stages.train.trainer.schedule import accumulation_steps


def memory_per_rank(cluster: ClusterConfig) -> float:
    """Bytes that one rank may use: a GPU, or its share of this machine's memory. CPU memory elsewhere is not known."""
    if cluster.gpus_per_worker:
        found = [] if cluster.address else machine.gpu_memory_bytes()
        return float(min(found)) if found else cluster.gpu_memory_gb * 1e9
    return float("inf") if cluster.address else machine.memory_bytes() / cluster.workers


def problem(model: ModelConfig, train: TrainConfig, cluster: ClusterConfig) -> str:
    """Why a training cannot run, in one line; empty if it can, by its settings and its figures."""
    if cluster.workers % cluster.tensor_parallel:
        return (
            f"cluster.tensor_parallel={cluster.tensor_parallel} does not divide cluster.workers={cluster.workers};"
            " change one of them"
        )
    try:
        check_pretraining("train", train, train.phases, model, cluster.tensor_parallel)
        accumulation_steps(train, cluster.workers // cluster.tensor_parallel, "train")
    except UserError as error:
        return str(error)
    room = memory_per_rank(cluster)
    for phase in phases(model, train, cluster):
        if not phase.fits(room):
            what = "GPU" if phase.on_gpu else "process"
            return (
                f"phase {phase.number} ({phase.config.objective}) needs {phase.gpu_bytes / 1e9:,.1f} GB on each {what},"
                f" which has {room / 1e9:,.1f}"
            )
    if not cluster.address:
        of_host = max(phase.host_bytes_per_rank for phase in phases(model, train, cluster)) * cluster.workers
        if cluster.gpus_per_worker and of_host > machine.memory_bytes():
            return f"needs {of_host / 1e9:,.1f} GB of this machine's memory, {machine.memory_bytes() / 1e9:,.1f} GB"
    return ""


def runs(model: ModelConfig, train: TrainConfig, cluster: ClusterConfig) -> bool:
    """Whether a training has no problem, and its copies of frozen weights fall onto the ranks evenly."""
    return not problem(model, train, cluster) and _allowed(model, train, cluster)


def largest_micro_batch(phase: PhasePlan, room: float) -> int | None:
    """The largest micro-batch of the phase that divides the global batch and fits; None if none does."""
    share = phase.train.global_batch // phase.data_ranks
    sizes = [size for size in range(share, 0, -1) if share % size == 0]
    for size in sizes:
        train = changed(phase.train, micro_batch=size)
        if PhasePlan(phase.model, train, phase.cluster, phase.number, phase.text_tokens).fits(room):
            return size
    return None


@dataclass(frozen=True)
class WeightLayout:
    """One way to lay the weights out over the ranks, for all phases."""

    name: str
    overrides: tuple[str, ...]
    plans: tuple[PhasePlan, ...]
    fits: bool
    current: bool

    @property
    def gb(self) -> float:
        """GB of a rank in the phase that needs most."""
        return max(plan.gpu_bytes for plan in self.plans) / 1e9

    def hours(self, shares: Mapping[int, float]) -> float:
        """Seconds per global batch, each phase by its share of the samples."""
        return sum(plan.step_seconds * shares[plan.number] for plan in self.plans)

    @property
    def network_seconds(self) -> float:
        """Seconds per step of all collectives, overlapping or not, in all phases."""
        return sum(each.seconds for plan in self.plans for each in plan.traffic)


def layouts(
    model: ModelConfig, train: TrainConfig, cluster: ClusterConfig, text_tokens: int | None = None
) -> list[WeightLayout]:
    """Stages 1 and 2 with weights on every rank or split over 2, 4, 8 of them; stage 3 over all, and, where parts are
    frozen, with a copy of those per node."""
    room = memory_per_rank(cluster)
    node = cluster.hardware.gpus_per_node
    frozen = any(plan.weights.frozen for plan in phases(model, train, cluster))
    choices: list[tuple[str, dict[str, Any], int]] = []
    for stage in (1, 2):
        for split in (1, 2, 4, 8):
            if cluster.workers % split == 0 and split <= max(node, 1):
                name = f"ZeRO-{stage}, weights " + (f"split over {split}" if split > 1 else "on every rank")
                choices.append((name, {"stage": stage}, split))
    choices.append(("ZeRO-3 over all ranks", {"stage": 3}, 1))
    if frozen and cluster.workers > node:
        choices.append((f"ZeRO-3, frozen weights over {node} ranks", {"stage": 3, "frozen_shards": node}, 1))
    found = []
    for name, zero, split in choices:
        own = changed(train, zero={"offload_optimizer": train.zero.offload_optimizer, **zero})
        other = cluster.model_copy(update={"tensor_parallel": split})
        fitted = _divisible(own, other)
        if fitted is None or not _allowed(model, fitted, other):
            continue
        plans = tuple(phases(model, fitted, other, text_tokens))
        overrides = _zero_overrides(train, zero)
        overrides += [f"cluster.tensor_parallel={split}"] if split != cluster.tensor_parallel else []
        overrides += [f"train.micro_batch={fitted.micro_batch}"] if fitted.micro_batch != train.micro_batch else []
        current = (
            zero["stage"] == train.zero.stage
            and zero.get("frozen_shards") == train.zero.frozen_shards
            and split == cluster.tensor_parallel
        )
        found.append(WeightLayout(name, tuple(overrides), plans, all(plan.fits(room) for plan in plans), current))
    return found


def best(found: list[WeightLayout], shares: Mapping[int, float]) -> WeightLayout | None:
    """The fastest that fits; of equally fast ones (within 1%) that with the least traffic."""
    fitting = [layout for layout in found if layout.fits]
    if not fitting:
        return None
    fastest = min(layout.hours(shares) for layout in fitting)
    close = [layout for layout in fitting if layout.hours(shares) <= 1.01 * fastest]
    return min(close, key=lambda layout: layout.network_seconds)


def phase_shares(train: TrainConfig, samples: float | None) -> dict[int, float]:
    """Phase -> its share of the steps."""
    steps = [
        float(phase.steps) if phase.steps is not None else (phase.epochs or 0) * (samples or 1e9) / train.global_batch
        for phase in train.phases
    ]
    return {number: each / sum(steps) for number, each in enumerate(steps)}


def changed(train: TrainConfig, **changes: Any) -> TrainConfig:
    """The recipe with some keys changed, validated anew."""
    return type(train).model_validate({**train.model_dump(), **changes})


def remedies(model: ModelConfig, train: TrainConfig, cluster: ClusterConfig, most: int = 3) -> list[list[str]]:
    """Sets of overrides, each checked to fit, the smallest changes first."""
    changes = list(_changes(model, train, cluster))
    found: list[list[str]] = []
    for count in range(1, 5):
        for chosen in combinations(changes, count):
            kinds = {kind for kind, _, _ in chosen}
            if len(kinds) < count or {"global_batch", "workers"} <= kinds:
                continue
            fields = {kind: value for kind, _, value in chosen if kind not in _OF_CLUSTER}
            of_cluster = {kind: value for kind, _, value in chosen if kind in _OF_CLUSTER}
            if runs(model, changed(train, **fields), cluster.model_copy(update=of_cluster)):
                found.append([text for _, text, _ in chosen])
            if len(found) == most:
                return found
        if found:
            return found
    return found


#: Kinds of changes that are the cluster's, not the recipe's.
_OF_CLUSTER = {"tensor_parallel", "workers"}


def _changes(model: ModelConfig, train: TrainConfig, cluster: ClusterConfig) -> Iterator[tuple[str, str, Any]]:
    """(key, override, value) of single changes that let numbers divide each other or save memory, those that cost least
    time first."""
    split = cluster.tensor_parallel
    ranks = max(1, cluster.workers // split)
    batches = [train.global_batch]
    if train.global_batch % ranks:
        # The nearest that divide over the ranks, in micro-batches as they are or in smaller ones.
        units = [ranks * train.micro_batch, ranks]
        batches += [unit * max(1, train.global_batch // unit + up) for unit in units for up in (0, 1)]
        for batch in dict.fromkeys(batches[1:]):
            yield "global_batch", f"train.global_batch={batch}", batch
    if cluster.workers % split or train.global_batch % ranks:
        for count in _fewer_workers(train, cluster):
            yield "workers", f"cluster.workers={count}", count
    shares = [batch // ranks for batch in batches if batch % ranks == 0] or [train.global_batch]
    sizes = {size for share in shares for size in range(1, train.micro_batch) if share % size == 0}
    for size in sorted(sizes, reverse=True)[:6]:
        yield "micro_batch", f"train.micro_batch={size}", size
    own = spec(model.architecture)
    layered = own.layers(model) if own.layers else {}
    for every in (4, 2, 1):
        value = {**dict.fromkeys(layered, every), **train.activation_checkpointing}
        value = {part: min(value[part], every) for part in value}
        if value and value != train.activation_checkpointing:
            text = ", ".join(f"{part}: {k}" for part, k in value.items())
            yield "activation_checkpointing", f"train.activation_checkpointing='{{{text}}}'", value
    if train.zero.frozen_shards is not None:
        over_all = {**train.zero.model_dump(), "frozen_shards": None}
        yield "zero", " ".join(_zero_overrides(train, over_all)), over_all
    for stage in range(train.zero.stage + 1, 4):
        zero: dict[str, Any] = {"stage": stage, "offload_optimizer": train.zero.offload_optimizer}
        if stage == 3 and cluster.workers > cluster.hardware.gpus_per_node:
            node = {**zero, "frozen_shards": cluster.hardware.gpus_per_node}
            yield "zero", " ".join(_zero_overrides(train, node)), node
        yield "zero", " ".join(_zero_overrides(train, zero)), zero
    if train.compile:
        yield "compile", "train.compile=false", False
    for degree in (1, 2, 4, 8):
        if (degree > split or (degree < split and cluster.workers % split)) and cluster.workers % degree == 0:
            yield "tensor_parallel", f"cluster.tensor_parallel={degree}", degree


def _fewer_workers(train: TrainConfig, cluster: ClusterConfig) -> list[int]:
    """The three largest numbers of ranks, no more than there are, over which the batch divides; whole nodes first."""
    split, node = cluster.tensor_parallel, max(1, cluster.hardware.gpus_per_node)
    counts = [
        count
        for count in range(cluster.workers // split * split, 0, -split)
        if train.global_batch % (count // split * train.micro_batch) == 0
    ]
    return sorted(counts, key=lambda count: (count % node != 0, -count))[:3]


def _zero_overrides(train: TrainConfig, zero: Mapping[str, Any]) -> list[str]:
    """The overrides that lead from the recipe's ZeRO to another."""
    words = [f"train.zero.stage={zero['stage']}"] if zero["stage"] != train.zero.stage else []
    if (shards := zero.get("frozen_shards")) != train.zero.frozen_shards:
        words.append(f"train.zero.frozen_shards={'null' if shards is None else shards}")
    return words


def _allowed(model: ModelConfig, train: TrainConfig, cluster: ClusterConfig) -> bool:
    """Whether the settings go with the model and each other, whatever they need."""
    try:
        check_pretraining("train", train, train.phases, model, cluster.tensor_parallel)
        check_frozen_shards("train", train, cluster.workers // cluster.tensor_parallel)
    except UserError:
        return False
    return True


def _divisible(train: TrainConfig, cluster: ClusterConfig) -> TrainConfig | None:
    """The recipe with the largest micro-batch, up to its own, that divides the global batch over the ranks."""
    ranks = max(1, cluster.workers // cluster.tensor_parallel)
    if train.global_batch % ranks:
        return None
    share = train.global_batch // ranks
    size = next(size for size in range(min(train.micro_batch, share), 0, -1) if share % size == 0)
    return changed(train, micro_batch=size) if size != train.micro_batch else train


def reserve_line(on_gpu: bool) -> str:
    """What is set aside, in words."""
    if on_gpu:
        return (
            f"{hardware.CONTEXT / 1e9:.1f} GB for CUDA's context and libraries,"
            f" {hardware.FRAGMENTATION:.0%} of the rest for fragmentation"
        )
    return f"{hardware.PROCESS / 1e9:.1f} GB for the process, {hardware.FRAGMENTATION:.0%} of the rest"
