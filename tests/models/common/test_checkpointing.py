"""Activation checkpointing: which layers it reaches, that it changes no bit, and what it saves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from models import registry
from models.common.batch import Batch
from models.common.checkpointing import checkpoint_activations, checkpointed_layers
from models.common.construction import leave_out
from models.common.errors import UserError

OBJECTIVES = [
    ("blip2_tiny", "representation"),
    ("blip2_tiny", "language_modeling"),
    ("florence2_tiny", "masked_autoencoding"),
    ("florence2_tiny", "sequence_to_sequence"),
]


def with_dropout(name: str, config: Callable[..., Any]) -> Any:
    """A tiny model of the YAML, with dropout wherever it can have some."""
    shape = config(name, vocabulary=60)
    parts = {"language": {**shape.language.model_dump(), "dropout": 0.1}}
    if name.startswith("blip2"):
        parts["qformer"] = {**shape.qformer.model_dump(), "dropout": 0.1}
    torch.manual_seed(0)
    return registry.build(config(name, vocabulary=60, **parts)).train()


@contextmanager
def saved() -> Iterator[dict[int, Tensor]]:
    """Tensors that autograd keeps inside the block, by address; weights are no activations."""
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, torch.nn.Parameter):
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield kept


def size(kept: dict[int, Tensor]) -> int:
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize(("name", "objective"), OBJECTIVES)
def test_recomputing_changes_no_bit_of_any_gradient(
    name: str, objective: str, step: int, config: Callable[..., Any], batch: Batch
) -> None:
    model = with_dropout(name, config)
    module = registry.objective(model, objective)
    gradients = []
    for every in ({}, dict.fromkeys(checkpointed_layers(model), step)):
        checkpoint_activations(model, every)
        torch.manual_seed(1)
        model.zero_grad()
        module(batch)["loss"].backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    assert all(torch.equal(gradients[0][name], gradients[1][name]) for name in gradients[0])


@pytest.mark.parametrize("name", ["blip2_tiny", "florence2_tiny"])
def test_the_parts_with_layers_are_those_the_architecture_declares(name: str, config: Callable[..., Any]) -> None:
    shape = config(name, vocabulary=60)
    declared = registry.spec(shape.architecture).layers
    assert declared is not None
    found = {part: len(layers) for part, layers in checkpointed_layers(registry.build(shape)).items()}
    assert found == declared(shape)


def test_only_each_kth_layer_of_the_part_is_recomputed(config: Callable[..., Any]) -> None:
    model = registry.build(config("blip2_tiny", vocabulary=60))
    checkpoint_activations(model, {"vision": 2})
    layers = checkpointed_layers(model)
    assert [layer.gradient_checkpointing for layer in layers["vision"]] == [True, False, True]
    assert not any(layer.gradient_checkpointing for part in ("qformer", "language") for layer in layers[part])


def test_layers_of_parts_that_are_left_out_count_for_nothing(config: Callable[..., Any]) -> None:
    model = registry.build(config("blip2_tiny", vocabulary=60))
    leave_out(model, model.named_parts(), ("vision", "qformer"))
    assert {part: len(layers) for part, layers in checkpointed_layers(model).items()} == {"vision": 3, "qformer": 2}


def test_parts_without_layers_and_unknown_ones_are_refused(either: Any) -> None:
    model = registry.build(either)
    with pytest.raises(UserError, match=r"activation_checkpointing: tower is no part of the model; give vision, "):
        checkpoint_activations(model, {"tower": 1})
    bare = "adapters" if either.architecture == "blip2" else "projector"
    with pytest.raises(UserError, match=f"activation_checkpointing: {bare} has no transformer layers; give vision, "):
        checkpoint_activations(model, {bare: 1})


def test_a_recomputed_layer_and_its_adapter_keep_their_inputs_alone(config: Callable[..., Any], batch: Batch) -> None:
    model = registry.build(config("blip2_tiny", vocabulary=60)).train()
    module = registry.objective(model, "language_modeling")
    decoder = model.language.model.decoder
    inputs: list[int] = []
    for layer in (*decoder.layers, *model.adapters.values()):
        layer.register_forward_pre_hook(lambda _, args: inputs.extend(a.data_ptr() for a in args[:2]))
    with saved() as before:
        module(batch)
    checkpoint_activations(model, {"language": 1})
    inputs.clear()
    with saved() as after:
        module(batch)
    assert size(after) < 0.6 * size(before)
    # Between the first layer's input and the last one's output autograd keeps the inputs of layers and adapters alone.
    length = batch["prompt_ids"].shape[1] + batch["target_ids"].shape[1]
    rows = len(batch["target_ids"]) * length
    wide = [t for t in after.values() if t.numel() in (rows * 96, rows * 384) and t.data_ptr() not in inputs]
    assert len(wide) <= 2, "the last norm's input and output"


def test_a_frozen_part_before_all_that_learns_keeps_nothing(config: Callable[..., Any], batch: Batch) -> None:
    model = registry.build(config("blip2_tiny", vocabulary=60)).train()
    registry.set_trainable(model, ["qformer", "adapters"])
    with saved() as kept:
        image = model.encode_vision(batch["pixels"])
    assert not kept
    assert not image.requires_grad


def test_frozen_layers_on_the_gradients_way_do_not_keep_what_only_their_weights_would_need(
    config: Callable[..., Any], batch: Batch
) -> None:
    model = registry.build(config("blip2_tiny", vocabulary=60)).train()
    module = registry.objective(model, "language_modeling")
    inputs: list[Tensor] = []  # held, so that no other tensor gets their addresses
    for layer in model.language.model.decoder.layers:
        for linear in (layer.self_attn.q_proj, layer.fc1):  # what the norms before them give
            linear.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    for learning, expected in ((["adapters", "language"], True), (["adapters"], False)):
        registry.set_trainable(model, learning)
        inputs.clear()
        with saved() as kept:
            module(batch)
        assert len(inputs) == 4
        assert all((one.untyped_storage().data_ptr() in kept) == expected for one in inputs)
