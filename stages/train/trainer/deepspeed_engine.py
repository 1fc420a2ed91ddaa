"""DeepSpeed's own configuration, derived from the settings and the real world size."""

from __future__ import annotations

from typing import Any

from stages.train.config import OptimizationConfig

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
