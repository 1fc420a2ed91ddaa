"""The linear operation under ZeRO-3, which keeps for backward neither a gathered weight nor inputs without use."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor


def install() -> None:
    """Have DeepSpeed use :func:`partitioned_linear` where it would replace `torch.nn.functional.linear` by its own.

    Its own keeps the input of every layer, also of a frozen one, and hands the weight to what keeps tensors:
    activation checkpointing then holds a second copy of a layer's gathered weights.
    """
    from deepspeed.runtime.zero import partition_parameters

    partition_parameters.zero3_linear_wrap = partitioned_linear


def partitioned_linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``input`` [..., inputs] @ ``weight`` [outputs, inputs] transposed + ``bias`` [outputs]."""
    return cast(Tensor, _PartitionedLinear.apply(input, weight, bias))


class _PartitionedLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        rows = input.reshape(-1, input.shape[-1])
        ctx.shape = input.shape
        ctx.save_for_backward(rows if ctx.needs_input_grad[1] else None)
        ctx.weight = weight  # the parameter, whose data come and go
        made = torch.mm(rows, weight.t()) if bias is None else torch.addmm(bias, rows, weight.t())
        return made.reshape(*input.shape[:-1], len(weight))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (rows,), weight = ctx.saved_tensors, ctx.weight
        for_input, for_weight, for_bias = ctx.needs_input_grad
        grad = grads[0].reshape(-1, grads[0].shape[-1])
        # Gathered by the hook that runs before a module's backward; not where a weight is used outside of its module.
        absent = for_input and getattr(getattr(weight, "ds_status", None), "name", None) == "NOT_AVAILABLE"
        if absent:
            weight.all_gather()
        try:
            return (
                torch.mm(grad, weight).reshape(ctx.shape) if for_input else None,
                torch.mm(grad.t(), rows) if for_weight else None,
                grad.sum(dim=0) if for_bias else None,
            )
        finally:
            if absent:
                weight.partition()
