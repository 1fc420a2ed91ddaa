"""What the ranks send each other per step, and how long it takes.

Ring collectives (Patarasuk and Yuan 2009): each rank receives (n - 1) / n of the bytes in an all-gather or a
reduce-scatter, twice that in an all-reduce. Within a node NVLink carries it. Between nodes NCCL lays rings over all
network cards, so that a node's whole network carries each ring once: a group that spans nodes moves its bytes at the
node's network rate, divided by the groups that a node takes part in at the same time.
"""

from __future__ import annotations

from dataclasses import dataclass

from models.common.cost_tape import Tape
from pipelines.cluster import ClusterConfig
from pipelines.plan.hardware import GPUS, LINK_EFFICIENCY
from pipelines.plan.memory import Setting, Weights


@dataclass(frozen=True)
class Traffic:
    """One kind of collective in a step."""

    name: str
    bytes: float
    """That a rank receives per step."""
    seconds: float
    overlaps: bool
    """Whether it runs beside the computation."""


def traffic(weights: Weights, tape: Tape | None, setting: Setting, cluster: ClusterConfig) -> list[Traffic]:
    """All collectives of a step that take time."""
    ranks, size, per_step = setting.data_ranks, setting.size, setting.accumulation
    trainable, frozen = size * weights.trainable, size * weights.frozen
    found: list[Traffic] = []

    def add(name: str, bytes_: float, group: int, *, overlaps: bool, neighbours: bool = False) -> None:
        received = bytes_ * (group - 1) / group
        if received:
            rate = _rate(cluster, group, neighbours=neighbours)
            found.append(Traffic(name, received, received / rate, overlaps))

    if setting.stage == 3:
        shards = min(setting.frozen_ranks or ranks, ranks)
        add("gather frozen weights", 2 * frozen * per_step, shards, overlaps=True)
        add("gather weights that learn", 2 * trainable * per_step, ranks, overlaps=True)
        add("scatter gradients", trainable * per_step, ranks, overlaps=True)
    else:
        # DeepSpeed reduces by all-reduces, at stage 2 after every micro-batch.
        times = per_step if setting.stage == 2 else 1
        add("reduce gradients", 2 * trainable * times, ranks, overlaps=setting.stage > 0)
        if setting.stage:
            add("gather updated weights", trainable, ranks, overlaps=False)
    if tape is not None and cluster.tensor_parallel > 1:
        name = "add up split matrices"
        add(name, 2 * tape.split_traffic * per_step, cluster.tensor_parallel, overlaps=False, neighbours=True)
    return found


def _rate(cluster: ClusterConfig, group: int, *, neighbours: bool) -> float:
    """Bytes per second at which a rank of a group receives; data-parallel ranks are `tensor_parallel` apart."""
    hardware = cluster.hardware
    link = GPUS[hardware.gpu].link * LINK_EFFICIENCY
    stride = 1 if neighbours else cluster.tensor_parallel
    if group * stride <= hardware.gpus_per_node:
        return link
    groups_per_node = min(stride, hardware.gpus_per_node)
    return min(link, hardware.network_gbit / 8 * 1e9 * LINK_EFFICIENCY / groups_per_node)
