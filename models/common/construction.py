"""A model on the meta device, its parts left out or filled: steps between a config and a model that can be used."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from models.common.weights import Values


class UnusedPart(nn.Module):
    """Stands where a module was that the current phase does not use."""

    def forward(self, *_: Any, **__: Any) -> None:
        """Raises RuntimeError: an objective uses a part that it does not declare."""
        raise RuntimeError("this part of the model was left out: the objective must list it among its `parts`")


def leave_out(model: nn.Module, parts: Mapping[str, nn.Module], kept: Collection[str]) -> None:
    """Remove the parameters and buffers of all ``parts`` but those ``kept`` from the model, in place."""
    needed = {id(weight) for name in kept for weight in parts[name].parameters()}
    unused = {id(weight) for name in parts if name not in kept for weight in parts[name].parameters()} - needed

    def prune(module: nn.Module) -> None:
        for name, weight in module.named_parameters(recurse=False):
            if id(weight) in unused:
                module.register_parameter(name, None)
        for name, child in module.named_children():
            weights = {id(weight) for weight in child.parameters()}
            if weights and weights <= unused:
                setattr(module, name, UnusedPart())
            else:
                prune(child)

    prune(model)


def replace_parameters(model: nn.Module, replacements: Mapping[nn.Parameter, nn.Parameter]) -> None:
    """Put other parameters in place of some, wherever a module holds one; attributes set on the old ones go along."""
    for old, new in replacements.items():
        new.__dict__.update(old.__dict__)
    for module in model.modules():
        for name, weight in module.named_parameters(recurse=False, remove_duplicate=False):
            if weight in replacements:
                module.register_parameter(name, replacements[weight])


def fill_buffers(model: nn.Module, values: Mapping[str, Values], device: torch.device) -> None:
    """Make the buffers that are on the meta device, with their values."""
    for prefix, module in model.named_modules():
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.is_meta:
                key = f"{prefix}.{name}" if prefix else name
                persistent = name not in module._non_persistent_buffers_set
                made = values[key].whole().to(device, buffer.dtype, copy=True)
                module.register_buffer(name, made, persistent=persistent)


def fill(model: nn.Module, values: Mapping[str, Values], dtype: torch.dtype = torch.float32) -> None:
    """Make every parameter and buffer of a model on the meta device, whole, on the CPU."""
    made: dict[nn.Parameter, nn.Parameter] = {}
    for name, weight in model.named_parameters():
        whole = values[name].whole().to(dtype, copy=True)
        made[weight] = nn.Parameter(whole, requires_grad=weight.requires_grad)
    replace_parameters(model, made)
    fill_buffers(model, values, torch.device("cpu"))


def by_first_name(model: nn.Module, values: Mapping[str, Values]) -> dict[str, Values]:
    """Values under the names of :meth:`named_parameters`, where they may be under any name of a tied parameter.

    Buffers keep their names; names that the model does not have are left out.
    """
    first: dict[Tensor, str] = {weight: name for name, weight in model.named_parameters()}
    found = {
        first[weight]: values[name] for name, weight in model.named_parameters(remove_duplicate=False) if name in values
    }
    return found | {name: values[name] for name, _ in model.named_buffers() if name in values}


def saved_names(model: nn.Module) -> dict[str, Tensor]:
    """What a saved model holds: its parameters by first name, and its persistent buffers, as they are in the model."""
    names = dict(model.named_parameters())
    state = model.state_dict(keep_vars=True)
    return names | {name: buffer for name, buffer in model.named_buffers() if name in state}
