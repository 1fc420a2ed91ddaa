"""The DeepSpeed engine: its configuration, its optimizer's parameter groups, and the whole weights out of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stages.train.config import OptimizationConfig
from stages.train.job import TrainingJob
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


def build_engine(job: TrainingJob, ranks: RankInfo, objective: nn.Module, accumulation: int) -> Any:
    """A DeepSpeed engine around an objective (a model and its loss), its optimizer over the weights that learn."""
    import deepspeed
    from deepspeed.utils.groups import get_tensor_model_parallel_group

    from models.common.output_layer import split_vocabulary

    groups = parameter_groups(objective, job.settings.weight_decay)
    config = deepspeed_config(
        job.settings,
        accumulation=accumulation,
        precision=job.precision,
        on_gpu=ranks.device.type == "cuda",
        tensor_parallel=job.tensor_parallel,
        trainable=sum(weight.numel() for group in groups for weight in group["params"]),
    )
    engine, *_ = deepspeed.initialize(model=objective, model_parameters=groups, config=config)
    if job.tensor_parallel > 1:
        # DeepSpeed would compare the first batch over the ranks that share weights, and fails on a dict of tensors;
        # theirs are equal by construction (`data_rank`).
        engine.first_dataloader_check.remove()
        split_vocabulary(objective, get_tensor_model_parallel_group())
    return engine


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """The weights that learn, in two groups: matrices, which decay, and vectors and scalars, which do not."""
    learning = [weight for weight in module.parameters() if weight.requires_grad]
    groups = [
        {"params": [w for w in learning if w.dim() >= 2], "weight_decay": weight_decay},
        {"params": [w for w in learning if w.dim() < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def unclipped_gradient_norm(engine: Any) -> Tensor:
    """The global norm, a scalar, of a step's gradients (averaged over ranks) before `engine.step` clips them.

    For ZeRO stage 0, where DeepSpeed clips but does not keep the norm; from stage 1 on the engine has it.
    """
    gradients = [weight.grad for weight in engine.module.parameters() if weight.grad is not None]
    return torch.nn.utils.get_total_norm(gradients)


def save_model(engine: Any, model: Any, folder: Path, job: TrainingJob) -> None:
    """Gather the weights and save them whole, in Hugging Face format. Every rank calls this; rank 0 writes."""
    import torch.distributed as dist
    from transformers.utils.logging import disable_progress_bar

    if job.tensor_parallel > 1:
        state = _tensor_parallel_state(engine, model)
    elif job.settings.zero.stage == 3:
        state = _partitioned_state(model)
    else:
        state = model.state_dict()
    if dist.get_rank() == 0:
        disable_progress_bar()
        model.save_pretrained(folder, state_dict=state)


def _partitioned_state(model: nn.Module) -> dict[str, Tensor]:
    """The whole weights of a model that ZeRO-3 spread over the ranks, one at a time; on rank 0 only."""
    import deepspeed
    import torch.distributed as dist

    state: dict[str, Tensor] = {}
    for name, weight in model.named_parameters():
        with deepspeed.zero.GatheredParameters([weight]):
            if dist.get_rank() == 0:
                state[name] = weight.detach().to("cpu", copy=True)
    own = model.state_dict()
    for name, buffer in model.named_buffers():
        if name in own:
            state[name] = buffer.detach().to("cpu", copy=True)
    return state


def _tensor_parallel_state(engine: Any, model: nn.Module) -> dict[str, Tensor]:
    """The whole weights of a model whose matrices DeepSpeed split; named as in the model, not as in its objective."""
    whole = engine._consolidated_16bit_state_dict() or {}
    prefix = next(name for name, module in engine.module.named_modules() if module is model)
    lead = f"{prefix}." if prefix else ""
    return {name[len(lead) :]: weight for name, weight in whole.items() if name.startswith(lead)}
