"""Activation checkpointing: which layers of a model are computed again when gradients are taken."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from models.common.errors import UserError
from models.common.pretrained import VisionLanguageModel
from models.common.spec import without_layers


def _recomputed(layer: Callable[..., Any], *inputs: Any) -> Any:
    """A layer's output, of which only the inputs are kept until backward.

    Non-reentrant, so that frozen weights before a layer do not matter and gradients arrive in the one backward pass
    that ZeRO's hooks expect. Dropout repeats, because random states are restored. Recomputing goes to the layer's end
    and does not stop at the last tensor needed: that would skip the hooks with which ZeRO-3 lets go of the weights it
    gathered. Shapes of what is recomputed are not compared, since ZeRO-3's weights have none by then.
    """

    def anchored(*inputs: Any) -> Any:
        made = layer(*inputs)
        return (_Anchor.apply(made[0]), *made[1:]) if isinstance(made, tuple) else _Anchor.apply(made)

    return checkpoint(anchored, *inputs, use_reentrant=False, early_stop=False, determinism_check="none")


class _Anchor(torch.autograd.Function):
    """Its input unchanged. Its backward, which comes first in a layer, has the layer recomputed.

    Otherwise the first operation that needs a kept tensor would, when ZeRO-3 has already gathered that operation's
    weight for backward; recomputing would let go of it again.
    """

    @staticmethod
    def forward(ctx: Any, output: Tensor) -> Tensor:
        ctx.save_for_backward(output.new_empty(0))
        return output.view_as(output)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        _ = ctx.saved_tensors
        return grads[0]


def checkpointed_layers(model: VisionLanguageModel) -> dict[str, list[Any]]:
    """Part -> its transformer layers in order, for parts that have some.

    Layers are those of `transformers` (an encoder's come before its decoder's); one that holds weights of several parts
    belongs to the first of them. A layer inside another one counts as part of it.
    """
    part_of: dict[int, str] = {}
    for name, part in model.named_parts().items():
        for weight in part.parameters():
            part_of.setdefault(id(weight), name)
    order = {name: number for number, name in enumerate(model.named_parts())}
    layers: dict[str, list[Any]] = {}
    inner: set[int] = set()
    for module in model.modules():
        if not isinstance(module, GradientCheckpointingLayer) or id(module) in inner:
            continue
        inner |= {id(child) for child in module.modules()}
        owners = {part_of[id(weight)] for weight in module.parameters()}
        if not owners:  # of a part that was left out
            continue
        layers.setdefault(min(owners, key=order.__getitem__), []).append(module)
    return layers


def checkpoint_activations(model: VisionLanguageModel, every: Mapping[str, int]) -> None:
    """Have layers 0, k, 2k, ... of each part in ``every`` (part -> k) keep their input alone while training.

    The rest of what backward needs is computed again there, with the same dropout: no result changes. Raises UserError
    for a part that the model does not have, or that has no transformer layers.
    """
    layers = checkpointed_layers(model)
    for part, step in every.items():
        if part not in layers:
            raise UserError(without_layers(part, model.named_parts(), layers))
        for layer in layers[part][::step]:
            # What `transformers`' own switch sets, which knows only all layers of a model or none.
            layer.gradient_checkpointing = True
            layer._gradient_checkpointing_func = _recomputed


@contextmanager
def grad_if_learning(module: nn.Module) -> Iterator[None]:
    """No gradients, hence no activations kept, where no weight of the module learns.

    For modules whose inputs need no gradient themselves.
    """
    with torch.set_grad_enabled(torch.is_grad_enabled() and any(p.requires_grad for p in module.parameters())):
        yield
