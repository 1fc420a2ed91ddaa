"""The DeepSpeed engine: its configuration and its optimizer's parameter groups."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from models.common.checkpointing import checkpointed_layers
from models.common.construction import fill_buffers
from models.common.output_layer import split_vocabulary
from models.common.pretrained import VisionLanguageModel
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
from stages.train.trainer.zero_sizes import bucket_elements

#: Which matrices tensor parallelism splits, by the names `transformers` gives them in CLIP, ViT, OPT, BART and decoders
#: of Llama's kind: left to itself DeepSpeed takes the ViT's `mlp.fc2` for a first matrix and splits its wrong side.
_SPLIT = [
    {"patterns": [r".*\.(q_proj|k_proj|v_proj|fc1|gate_proj|up_proj)(\.weight)?$"], "partition_type": "column"},
    {"patterns": [r".*\.(out_proj|o_proj|fc2|down_proj)(\.weight)?$"], "partition_type": "row"},
]


def deepspeed_config(
    settings: OptimizationConfig,
    *,
    accumulation: int,
    precision: str,
    on_gpu: bool,
    tensor_parallel: int,
    trainable: int,
    layer: int,
) -> dict[str, Any]:
    """The dictionary `deepspeed.initialize` takes.

    `trainable` is the number of weights that learn, `layer` that of the largest transformer layer: under ZeRO-3 one is
    in use and the next is on its way. A matrix that is larger, such as an embedding, is gathered by itself.

    The learning rate is set anew at each step by the training loop; DeepSpeed gets no scheduler.
    """
    # DeepSpeed wants an even number.
    bucket = min(bucket_elements(trainable), max(trainable, 2))
    bucket += bucket % 2
    zero: dict[str, Any] = {
        "stage": settings.zero.stage,
        "reduce_bucket_size": bucket,
        # Gradients of one bucket travel while backward computes the next: on a GPU over a stream of its own, for which
        # they are copied together as they come. On a CPU both would share the cores.
        "overlap_comm": on_gpu and settings.zero.stage > 0,
        "contiguous_gradients": True,
        "reduce_scatter": True,  # each rank gets the sums of its own partition only: half of an all-reduce's traffic
    }
    if settings.zero.stage < 3:
        zero["allgather_bucket_size"] = bucket
    else:
        zero["sub_group_size"] = bucket  # weights whose gradients the optimizer has in float32 at a time
        zero["stage3_prefetch_bucket_size"] = layer
        zero["stage3_max_live_parameters"] = 2 * layer
        # Recomputed layers are used again at once, for their gradients; gathered weights are kept for no longer.
        zero["stage3_max_reuse_distance"] = layer
    if settings.zero.offload_optimizer:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": on_gpu}
    offloads_to_host = on_gpu and settings.zero.offload_optimizer
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
                "torch_adam": not offloads_to_host,
                # One kernel per group, not a dozen passes over weights and moments. On a CPU the plain one, whose
                # results do not depend on how the partition is divided over threads.
                **({"fused": True} if on_gpu and not offloads_to_host else {}),
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
    from deepspeed.accelerator import get_accelerator

    # Ray Train has made the process group; what divides the model needs DeepSpeed to know it.
    deepspeed.init_distributed(dist_backend=get_accelerator().communication_backend_name())
    zero = job.settings.zero
    dtype = torch.bfloat16 if job.precision == "bf16" else torch.float32
    finish = split_tensor_parallel(phase.objective, job.tensor_parallel, _SPLIT) if job.tensor_parallel > 1 else None
    trainable = sum(weight.numel() for weight in phase.objective.parameters() if weight.requires_grad)
    config = deepspeed_config(
        job.settings,
        accumulation=accumulation,
        precision=job.precision,
        on_gpu=ranks.device.type == "cuda",
        tensor_parallel=job.tensor_parallel,
        trainable=trainable,
        layer=largest_layer(phase.objective),
    )
    if zero.stage == 3:
        allocate_partitioned(phase.objective, dtype, ranks, config, zero.frozen_shards)
    else:
        allocate(phase.objective, dtype, ranks.device)
    fill_buffers(phase.model, phase.values, ranks.device)
    if finish is not None:
        finish(phase.objective)
    groups = parameter_groups(phase.objective, job.settings.weight_decay, bucket_elements(trainable))
    with _no_trial_gradients(offload=zero.offload_optimizer):
        engine, *_ = deepspeed.initialize(model=phase.objective, model_parameters=groups, config=config)
    if job.tensor_parallel > 1:
        from deepspeed.utils.groups import get_tensor_model_parallel_group

        # DeepSpeed would compare the first batch over the ranks that share weights, and fails on a dict of tensors;
        # theirs are equal by construction (`data_rank`).
        engine.first_dataloader_check.remove()
        split_vocabulary(phase.objective, get_tensor_model_parallel_group())
    fill(engine, phase)
    if not hasattr(engine.optimizer, "overflow"):
        _leave_out_non_finite(engine)
    if job.settings.compile:
        compile_layers(phase.model)
    return engine


def _leave_out_non_finite(engine: Any) -> None:
    """Have the plain optimizer of ZeRO stage 0 update nothing where gradients are not finite, as DeepSpeed's own do.

    Gradients are equal on all ranks then. The engine looks at `overflow` after the step.
    """
    optimizer = engine.optimizer
    apply = optimizer.step
    optimizer.overflow = False

    def step(closure: Any = None) -> Any:
        optimizer.overflow = not bool(torch.isfinite(unclipped_gradient_norm(engine)))
        return None if optimizer.overflow else apply(closure)

    optimizer.step = step


@contextmanager
def _no_trial_gradients(offload: bool) -> Iterator[None]:
    """Keep ZeRO stages 1 and 2 from making float32 gradients of a rank's whole partition, only to drop them again."""
    from deepspeed.runtime.zero.stage_1_and_2 import DeepSpeedZeroOptimizer

    original = DeepSpeedZeroOptimizer.initialize_optimizer_states
    if not offload:  # where they stay
        DeepSpeedZeroOptimizer.initialize_optimizer_states = lambda self: None
    try:
        yield
    finally:
        DeepSpeedZeroOptimizer.initialize_optimizer_states = original


def compile_layers(model: VisionLanguageModel) -> None:
    """Have `torch.compile` compile the transformer layers at their first call, all layers of a kind once.

    Of a layer its `forward` alone: hooks (adapters, gradients), activation checkpointing and the functions with
    gradients of their own (losses, gathering over ranks) stay outside.
    """
    # Layers of a kind share their code, which is compiled again for lengths that vary, for dropout and for what is
    # frozen; beyond the limit, by default 8, layers would silently run uncompiled.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 64)
    for layers in checkpointed_layers(model).values():
        for layer in layers:
            layer.forward = torch.compile(layer.forward)


def largest_layer(module: nn.Module) -> int:
    """Weights of the largest transformer layer; of a model without any, of the largest module without children."""
    layers: list[nn.Module] = [m for m in module.modules() if isinstance(m, GradientCheckpointingLayer)]
    units = layers or [m for m in module.modules() if not list(m.children())]
    return max(sum(weight.numel() for weight in unit.parameters()) for unit in units)


def parameter_groups(module: nn.Module, weight_decay: float, largest: int) -> list[dict[str, Any]]:
    """The weights that learn: groups of matrices, which decay, and of vectors and scalars, which do not.

    A group has at most ``largest`` elements, or one weight: the optimizer takes a group at a time, with its gradients
    in float32.
    """
    groups: list[dict[str, Any]] = []
    for is_matrix in (True, False):
        filled = largest
        for weight in module.parameters():
            shape = getattr(weight, "ds_shape", weight.shape)  # ZeRO-3 leaves weights no shape
            if not weight.requires_grad or (len(shape) >= 2) != is_matrix:
                continue
            if filled + shape.numel() > largest:
                groups.append({"params": [], "weight_decay": weight_decay if is_matrix else 0.0})
                filled = 0
            groups[-1]["params"].append(weight)
            filled += shape.numel()
    return groups


def unclipped_gradient_norm(engine: Any) -> Tensor:
    """The global norm, a scalar, of a step's gradients (averaged over ranks) before `engine.step` clips them.

    For ZeRO stage 0, where DeepSpeed clips but does not keep the norm; from stage 1 on the engine has it.
    """
    gradients = [weight.grad for weight in engine.module.parameters() if weight.grad is not None]
    return torch.nn.utils.get_total_norm(gradients)
