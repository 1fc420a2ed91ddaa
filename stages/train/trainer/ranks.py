"""One training process among all: its rank, its device, and its libraries set up before the first engine is built."""

from __future__ import annotations

import logging
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stages.train.trainer import partitioned_linear

if TYPE_CHECKING:
    import torch

    from stages.train.job import TrainingJob


@dataclass(frozen=True)
class RankInfo:
    """The rank of this process and the size of the group."""

    rank: int
    world_size: int
    tensor_parallel: int
    """Neighbouring ranks that share one copy of the weights and see the same samples."""
    device: torch.device

    @property
    def data_rank(self) -> int:
        """Rank among those that see different samples."""
        return self.rank // self.tensor_parallel

    @property
    def data_ranks(self) -> int:
        """Number of ranks that see different samples."""
        return self.world_size // self.tensor_parallel

    @property
    def is_first_of_data_rank(self) -> bool:
        """Whether no lower rank sees the same samples: what is counted per sample is counted on these ranks."""
        return self.rank % self.tensor_parallel == 0


def set_up_process(job: TrainingJob) -> RankInfo:
    """Configure torch and DeepSpeed in a process that Ray Train started; returns its place in the group."""
    import ray.train.torch
    import torch

    torch.set_num_threads(job.threads)
    device = ray.train.torch.get_device()
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    if device.type == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    else:
        set_gpu_precision()
    _import_deepspeed()
    context = ray.train.get_context()
    return RankInfo(context.get_world_rank(), context.get_world_size(), job.tensor_parallel, device)


def set_gpu_precision() -> None:
    """Have GPUs multiply fp32 matrices in TF32 (10 bits of mantissa, sums in fp32), and add up bf16 products in fp32."""
    import torch

    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False


def _import_deepspeed() -> None:
    # DeepSpeed's autotuner, unused here, imports mlflow if it can: a third of the time a worker takes to start.
    hide_mlflow = "mlflow" not in sys.modules
    if hide_mlflow:
        sys.modules["mlflow"] = None  # type: ignore[assignment]
    import deepspeed

    if hide_mlflow:
        del sys.modules["mlflow"]
    # On a CPU DeepSpeed would compile a shared-memory all-reduce for minutes, and hang after a build that was killed.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    partitioned_linear.install()
