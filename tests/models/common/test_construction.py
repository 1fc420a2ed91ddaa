"""Parts of a model that are left out take no memory and leave the others as they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from models import registry
from models.common.batch import Batch
from models.common.construction import fill, leave_out
from models.common.safetensors_file import write_safetensors
from models.common.weights import read_folder


@pytest.mark.parametrize(
    ("name", "objective"),
    [
        ("blip2_tiny", "representation"),
        ("blip2_tiny", "language_modeling"),
        ("florence2_tiny", "masked_autoencoding"),
        ("florence2_tiny", "sequence_to_sequence"),
    ],
)
def test_an_objective_needs_its_parts_alone(
    name: str, objective: str, config: Callable[..., Any], batch: Batch
) -> None:
    shape = config(name, vocabulary=60)
    whole = registry.build(shape).eval()
    model, values = registry.construct(shape)
    used = registry.objective_parts(shape, objective)
    leave_out(model, model.named_parts(), used)
    fill(model, values)
    counted = registry.count_parameters(shape)
    assert sum(weight.numel() for weight in model.parameters()) == sum(counted[part] for part in used)
    losses = []
    for one in (whole, model.eval()):
        torch.manual_seed(0)
        losses.append(registry.objective(one, objective)(batch)["loss"])
    assert losses[0] == losses[1]


def test_a_part_that_was_left_out_says_so_when_it_is_used(config: Callable[..., Any], batch: Batch) -> None:
    model, values = registry.construct(config("florence2_tiny", vocabulary=60))
    leave_out(model, model.named_parts(), ["vision", "language"])
    fill(model, values)
    with pytest.raises(RuntimeError, match="must list it among its `parts`"):
        registry.objective(model, "sequence_to_sequence")(batch)


def test_tensors_written_in_pieces_are_read_back(tmp_path: Path) -> None:
    tensors = {
        "a": torch.randn(3, 4),
        "b": torch.randn(5).bfloat16(),
        "empty": torch.zeros(0, 2),
        "c": torch.arange(7),
        "one": torch.tensor(2.5),
    }
    described = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
    pieces = [piece for tensor in tensors.values() for piece in tensor.reshape(-1).split(2)]
    write_safetensors(tmp_path / "model.safetensors", described, iter(pieces))
    read = read_folder(tmp_path, "key")
    assert set(read) == set(tensors)
    for name, tensor in tensors.items():
        assert torch.equal(read[name].whole(), tensor), name
    with pytest.raises(ValueError, match="too few"):
        write_safetensors(tmp_path / "other.safetensors", described, iter(pieces[:-1]))
    with pytest.raises(ValueError, match="expected at most"):
        write_safetensors(tmp_path / "other.safetensors", described, iter([torch.zeros(13), *pieces]))
    assert not (tmp_path / "other.safetensors").exists()
