"""The finished model as a folder that `transformers` opens, written by all ranks side by side.

Weights are read from where they lie, the phases that trained them or what the job started from, and written tensor by
tensor: no rank holds more than a few megabytes of them.
"""

from __future__ import annotations

import os
import shutil

import torch
from transformers import GenerationConfig

from models.common.saving import plan_files, tensors_of, write_description, write_file
from stages.train.job import TrainingJob
from stages.train.trainer.construction import starting_values
from stages.train.trainer.ranks import RankInfo


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
    tensors = tensors_of(model, precision)
    files = plan_files(tensors, ranks.world_size)
    for file, names in list(files.items())[ranks.rank :: ranks.world_size]:
        write_file(partial / file, tensors, names, values)
    dist.barrier()
    if ranks.rank == 0:
        write_description(model, partial, files, tensors, precision)
        ids = {name: getattr(model.config, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
        GenerationConfig(**ids).save_pretrained(partial)
        os.replace(partial, job.model_folder)
    dist.barrier()
