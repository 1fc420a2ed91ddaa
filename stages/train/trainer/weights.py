"""Weights on their way into the optimizer and out to disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from stages.train.job import TrainingJob


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """The weights that learn, in two groups: matrices, which decay, and vectors and scalars, which do not."""
    learning = [weight for weight in module.parameters() if weight.requires_grad]
    groups = [
        {"params": [w for w in learning if w.dim() >= 2], "weight_decay": weight_decay},
        {"params": [w for w in learning if w.dim() < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


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
    """The whole weights of a model whose matrices DeepSpeed split; names as in the model, not in the task around it."""
    whole = engine._consolidated_16bit_state_dict() or {}
    prefix = next(name for name, module in engine.module.named_modules() if module is model)
    lead = f"{prefix}." if prefix else ""
    return {name[len(lead) :]: weight for name, weight in whole.items() if name.startswith(lead)}
