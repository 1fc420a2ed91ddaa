"""What the machine or cluster grants to a run; never part of a fingerprint."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from stages.base.contract import NotFingerprinted, StageConfig


class ClusterConfig(StageConfig):
    """`conf/cluster/*.yaml`: where Ray is, and what the training workers get."""

    name: Annotated[str, NotFingerprinted] = "local"
    """As in `CLUSTER=name`."""
    address: Annotated[str | None, NotFingerprinted] = None
    """Ray address to join (`auto`, `ray://head:10001`); null starts Ray on this machine for the run."""
    cpus: Annotated[int | None, NotFingerprinted, Field(ge=1)] = None
    """CPUs of a local Ray; null takes all, but at least `workers` x `cpus_per_worker`."""
    workers: Annotated[int, NotFingerprinted, Field(ge=1)] = 2
    """Training workers (ranks): one per GPU on a GPU cluster."""
    cpus_per_worker: Annotated[int, NotFingerprinted, Field(ge=1)] = 1
    """CPUs each training worker reserves; also its number of torch threads."""
    gpus_per_worker: Annotated[int, NotFingerprinted, Field(ge=0, le=1)] = 0
    """1 to train on GPUs."""
    gpu_memory_gb: Annotated[float, NotFingerprinted, Field(ge=0)] = 0.0
    """Memory of one GPU in GB (10^9 bytes); compared with what a model needs before anything starts."""
    tensor_parallel: Annotated[int, NotFingerprinted, Field(ge=1)] = 1
    """Ranks that share one copy of the weights (DeepSpeed `autotp_size`); must divide `workers`."""
    precision: Annotated[Literal["fp32", "bf16"], NotFingerprinted] = "fp32"
    """Arithmetic of training; part of what a model is made from, so another one trains it anew. On a CPU without bf16
    instructions fp32 is faster."""
    max_failures: Annotated[int, NotFingerprinted, Field(ge=0)] = 3
    """How often a failed training group, partition or task is started again before the run gives up."""
    scratch: Annotated[str | None, NotFingerprinted] = None
    """Folder all nodes share, for checkpoints of unfinished stages; null puts it inside the workspace."""
