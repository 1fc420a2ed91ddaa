"""Writing a model as a `transformers` folder from values that are read piece by piece, in one file or several."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from models.common.construction import saved_names
from models.common.safetensors_file import write_safetensors
from models.common.weights import INDEX, SINGLE, Values, blocks

#: Bytes of weights in a file: `transformers`' greatest, and what is worth a file of its own.
_LARGEST, _SMALLEST = 5_000_000_000, 256_000_000

Tensors = Mapping[str, tuple[torch.dtype, tuple[int, ...]]]


def tensors_of(model: PreTrainedModel, precision: torch.dtype) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
    """What a saved model holds: name -> dtype (its parameters in ``precision``) and shape. It may be on `meta`."""
    return {
        name: (precision if isinstance(tensor, torch.nn.Parameter) else tensor.dtype, tuple(tensor.shape))
        for name, tensor in saved_names(model).items()
    }


def plan_files(tensors: Tensors, writers: int) -> dict[str, list[str]]:
    """File -> names of its tensors, in order: about one file per writer, none needlessly small."""
    sizes = {name: math.prod(shape) * dtype.itemsize for name, (dtype, shape) in tensors.items()}
    total = sum(sizes.values())
    target = min(_LARGEST, max(_SMALLEST, math.ceil(total / writers)))
    groups: list[list[str]] = [[]]
    filled = 0
    for name, size in sizes.items():
        if groups[-1] and filled + size > target:
            groups.append([])
            filled = 0
        groups[-1].append(name)
        filled += size
    if len(groups) == 1:
        return {SINGLE: groups[0]}
    return {f"model-{n + 1:05d}-of-{len(groups):05d}.safetensors": names for n, names in enumerate(groups)}


def write_file(path: Path, tensors: Tensors, names: Sequence[str], values: Mapping[str, Values]) -> None:
    """Write one of the planned files; a few megabytes of it are in memory at a time."""
    own = {name: tensors[name] for name in names}
    write_safetensors(path, own, _pieces(own, values))


def write_description(
    model: PreTrainedModel, folder: Path, files: Mapping[str, Sequence[str]], tensors: Tensors, precision: torch.dtype
) -> None:
    """Write what goes with the files: the index, where there are several, and config.json."""
    if len(files) > 1:
        total = sum(math.prod(shape) * dtype.itemsize for dtype, shape in tensors.values())
        index = {
            "metadata": {
                "total_parameters": sum(math.prod(shape) for _, shape in tensors.values()),
                "total_size": total,
            },
            "weight_map": {name: file for file, names in files.items() for name in names},
        }
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    model.config.architectures = [type(model).__name__]
    model.config.dtype = str(precision).removeprefix("torch.")
    model.config.save_pretrained(folder)


def write_model(model: PreTrainedModel, values: Mapping[str, Values], folder: Path, precision: torch.dtype) -> None:
    """Write a whole model, which may be on the meta device, from this one process: config, index and weights."""
    tensors = tensors_of(model, precision)
    files = plan_files(tensors, writers=1)
    for file, names in files.items():
        write_file(folder / file, tensors, names, values)
    write_description(model, folder, files, tensors, precision)


def _pieces(tensors: Tensors, values: Mapping[str, Values]) -> Iterator[Tensor]:
    for name, (dtype, shape) in tensors.items():
        for start, stop in blocks(0, math.prod(shape)):
            yield values[name].flat(start, stop).to(dtype)
