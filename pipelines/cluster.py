"""What the machine or cluster grants to a run; never part of a fingerprint."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from stages.base.contract import NotFingerprinted, StageConfig


class HardwareConfig(StageConfig):
    """What `pairmill plan` computes times and energy with; has no effect on a run."""

    gpu: Annotated[Literal["a100", "h100", "h200"], NotFingerprinted] = "a100"
    """Kind of GPU (the SXM modules): its figures are in `pipelines/plan/hardware.py`."""
    gpus_per_node: Annotated[int, NotFingerprinted, Field(ge=1)] = 8
    """GPUs that NVLink connects."""
    network_gbit: Annotated[float, NotFingerprinted, Field(gt=0)] = 1600.0
    """Network of a node, in Gbit/s per direction; 8 x HDR InfiniBand (200 Gbit/s) by default."""
    efficiency: Annotated[float, NotFingerprinted, Field(gt=0, le=1)] = 0.5
    """Share of a GPU's peak FLOP/s at which it computes while it does; MFU follows, lower by what is recomputed and by
    waiting for the network."""
    pue: Annotated[float, NotFingerprinted, Field(ge=1)] = 1.2
    """Power of the whole data centre over that of its computers."""
    storage_gb_per_s: Annotated[float, NotFingerprinted, Field(gt=0)] = 10.0
    """GB/s at which all ranks together write checkpoints and models."""


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
    hardware: Annotated[HardwareConfig, NotFingerprinted] = HardwareConfig()
    """What `pairmill plan` takes the machines for."""
    scratch: Annotated[str | None, NotFingerprinted] = None
    """Folder all nodes share, for checkpoints of unfinished stages; null puts it inside the workspace."""
