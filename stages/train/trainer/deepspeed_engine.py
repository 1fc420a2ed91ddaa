"""The DeepSpeed engine: its configuration and its optimizer's parameter groups."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from models.common.construction import fill_buffers
from stages.train.config import OptimizationConfig
from stages.train.job import TrainingJob
from stages.train.trainer.construction import (
    PhaseModel,
    allocate,
    allocate_partitioned,
    fill,
    split_tensor_parallel,
)
from stages.train.trainer.ranks import RankInfo

#: DeepSpeed's default size of a gradient bucket, in elements; it is allocated whole, so small models take less.
_BUCKET = 500_000_000

#: Which matrices tensor parallelism splits, by the names `transformers` gives them in CLIP, ViT, OPT and BART: left to
#: itself DeepSpeed takes the ViT's `mlp.fc2` for a first matrix and splits its wrong side.
_SPLIT = [
    {"patterns": [r".*\.(q_proj|k_proj|v_proj|fc1)(\.weight)?$"], "partition_type": "column"},
    {"patterns": [r".*\.(out_proj|o_proj|fc2)(\.weight)?$"], "partition_type": "row"},
]


def deepspeed_config(
    settings: OptimizationConfig,
    *,
    accumulation: int,
    precision: str,
    on_gpu: bool,
    tensor_parallel: int,
    trainable: int,
) -> dict[str, Any]:
    """The dictionary `deepspeed.initialize` takes. `trainable` is the number of weights that learn.

    The learning rate is set anew at each step by the training loop; DeepSpeed gets no scheduler.
    """
    # DeepSpeed wants an even number.
    bucket = min(_BUCKET, max(trainable + trainable % 2, 2))
    zero: dict[str, Any] = {
        "stage": settings.zero.stage,
        "reduce_bucket_size": bucket,
        "overlap_comm": on_gpu and settings.zero.stage > 0,
    }
    if settings.zero.stage < 3:
        zero["allgather_bucket_size"] = bucket
    if settings.zero.offload_optimizer:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": on_gpu}
    config: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": settings.micro_batch,
        "gradient_accumulation_steps": accumulation,
        "gradient_clipping": settings.grad_clip,
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "bf16": {"enabled": precision == "bf16"},
        "optimizer": {
            "type": "AdamW",
            "params": {
                "lr": settings.lr,
                "betas": list(settings.betas),
                "eps": settings.eps,
                # DeepSpeed's own Adam compiles C++ or CUDA at first use; it is worth that only for offloading.
                "torch_adam": not (on_gpu and settings.zero.offload_optimizer),
            },
        },
    }
    if tensor_parallel > 1:
        config["tensor_parallel"] = {
            "autotp_size": tensor_parallel,
            "partition_config": {"layer_specs": _SPLIT, "use_default_specs": False},
        }
    return config


def build_engine(job: TrainingJob, ranks: RankInfo, phase: PhaseModel, accumulation: int) -> Any:
    """A DeepSpeed engine around a phase's objective, its optimizer over the weights that learn, all weights filled."""
    import deepspeed
    from deepspeed.utils.groups import get_tensor_model_parallel_group

    from models.common.output_layer import split_vocabulary

    zero = job.settings.zero
    dtype = torch.bfloat16 if job.precision == "bf16" else torch.float32
    finish = split_tensor_parallel(phase.objective, job.tensor_parallel, _SPLIT) if job.tensor_parallel > 1 else None
    config = deepspeed_config(
        job.settings,
        accumulation=accumulation,
        precision=job.precision,
        on_gpu=ranks.device.type == "cuda",
        tensor_parallel=job.tensor_parallel,
        trainable=sum(weight.numel() for weight in phase.objective.parameters() if weight.requires_grad),
    )
    if zero.stage == 3:
        allocate_partitioned(phase.objective, dtype, ranks, config, zero.frozen_shards)
    else:
        allocate(phase.objective, dtype, ranks.device)
    fill_buffers(phase.model, phase.values, ranks.device)
    if finish is not None:
        finish(phase.objective)
    groups = parameter_groups(phase.objective, job.settings.weight_decay)
    engine, *_ = deepspeed.initialize(model=phase.objective, model_parameters=groups, config=config)
    if job.tensor_parallel > 1:
        # DeepSpeed would compare the first batch over the ranks that share weights, and fails on a dict of tensors;
        # theirs are equal by construction (`data_rank`).
        engine.first_dataloader_check.remove()
        split_vocabulary(phase.objective, get_tensor_model_parallel_group())
    fill(engine, phase)
    return engine


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """The weights that learn, in two groups: matrices, which decay, and vectors and scalars, which do not."""
    learning = [weight for weight in module.parameters() if weight.requires_grad]
    dims = [len(getattr(weight, "ds_shape", weight.shape)) for weight in learning]  # ZeRO-3 leaves weights no shape
    groups = [
        {"params": [w for w, dim in zip(learning, dims, strict=True) if dim >= 2], "weight_decay": weight_decay},
        {"params": [w for w, dim in zip(learning, dims, strict=True) if dim < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def unclipped_gradient_norm(engine: Any) -> Tensor:
    """The global norm, a scalar, of a step's gradients (averaged over ranks) before `engine.step` clips them.

    For ZeRO stage 0, where DeepSpeed clips but does not keep the norm; from stage 1 on the engine has it.
    """
    gradients = [weight.grad for weight in engine.module.parameters() if weight.grad is not None]
    return torch.nn.utils.get_total_norm(gradients)
