"""The finished model as a folder that `transformers` opens, written by all ranks side by side.

Weights are read from where they lie, the phases that trained them or what the job started from, and written tensor by
tensor: no rank holds more than a few megabytes of them.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import GenerationConfig

from models.common.construction import saved_names
from models.common.safetensors_file import write_safetensors
from models.common.weights import INDEX, SINGLE, Values, blocks
from stages.train.job import TrainingJob
from stages.train.trainer.construction import starting_values
from stages.train.trainer.ranks import RankInfo

#: Bytes of weights in a file: `transformers`' greatest, and what is worth a file of its own.
_LARGEST, _SMALLEST = 5_000_000_000, 256_000_000

Tensors = Mapping[str, tuple[torch.dtype, tuple[int, ...]]]


def export_model(job: TrainingJob, ranks: RankInfo) -> None:
    """Write the model after all phases. Every rank calls this; the folder takes its name when all have written."""
    import torch.distributed as dist

    model, values = starting_values(job, len(job.phases))
    partial = job.model_folder.with_name("model.part")
    if ranks.rank == 0:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    dist.barrier()
    precision = torch.bfloat16 if job.precision == "bf16" else torch.float32
    tensors = {
        name: (precision if isinstance(tensor, torch.nn.Parameter) else tensor.dtype, tuple(tensor.shape))
        for name, tensor in saved_names(model).items()
    }
    files = plan_files(tensors, ranks.world_size)
    for file, names in list(files.items())[ranks.rank :: ranks.world_size]:
        own = {name: tensors[name] for name in names}
        write_safetensors(partial / file, own, _pieces(own, values))
    dist.barrier()
    if ranks.rank == 0:
        if len(files) > 1:
            _write_index(partial / INDEX, files, tensors)
        model.config.architectures = [type(model).__name__]
        model.config.dtype = str(precision).removeprefix("torch.")
        model.config.save_pretrained(partial)
        ids = {name: getattr(model.config, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
        GenerationConfig(**ids).save_pretrained(partial)
        os.replace(partial, job.model_folder)
    dist.barrier()


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


def _pieces(tensors: Tensors, values: Mapping[str, Values]) -> Iterator[Tensor]:
    for name, (dtype, shape) in tensors.items():
        for start, stop in blocks(0, math.prod(shape)):
            yield values[name].flat(start, stop).to(dtype)


def _write_index(path: Path, files: Mapping[str, Sequence[str]], tensors: Tensors) -> None:
    total = sum(math.prod(shape) * dtype.itemsize for dtype, shape in tensors.values())
    parameters = sum(math.prod(shape) for _, shape in tensors.values())
    index = {
        "metadata": {"total_parameters": parameters, "total_size": total},
        "weight_map": {name: file for file, names in files.items() for name in names},
    }
    path.write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
