"""What a rank does to show that a step that is not finite changes no weight, under each of ZeRO's stages."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from tests.stages.train.trainer.gradients import MODELS
from tests.stages.train.trainer.rehearsal import batch_of, make_job


def weights_after(precision: str, stages: list[int], folder: str) -> dict[str, dict[str, Any]]:
    """By ZeRO stage: which of four steps were applied, and whether weights equal those of a run without the second.

    The second step is not finite on the last rank alone: its pixels are NaN.
    """
    return {str(stage): _compared(precision, stage, folder) for stage in stages}


def _compared(precision: str, stage: int, folder: str) -> dict[str, Any]:
    disturbed, applied = _trained(precision, stage, folder, bad=1)
    plain, _ = _trained(precision, stage, folder, bad=None)
    return {
        "applied": applied,
        "equal": all(torch.equal(disturbed[name], plain[name]) for name in plain),
        "finite": all(bool(torch.isfinite(weight).all()) for weight in disturbed.values()),
    }


def _trained(precision: str, stage: int, folder: str, bad: int | None) -> tuple[dict[str, torch.Tensor], list[bool]]:
    import deepspeed

    from stages.train.trainer.construction import construct, release
    from stages.train.trainer.deepspeed_engine import build_engine
    from stages.train.trainer.guard import admitted
    from stages.train.trainer.ranks import RankInfo

    case = {
        "model": MODELS["florence2"],
        "settings": {"global_batch": 4, "micro_batch": 1, "zero": {"stage": stage}, "lr": 0.01},
        "phase": {"objective": "sequence_to_sequence", "steps": 4},
        "precision": precision,
    }
    job = make_job(case, Path(folder))
    job = replace(job, scratch=folder)
    rank, ranks = dist.get_rank(), dist.get_world_size()
    phase = construct(job, 0)
    engine = build_engine(job, RankInfo(rank, ranks, 1, torch.device("cpu")), phase, 2)
    engine.train()
    applied = []
    for step in range(4 if bad is not None else 3):
        for micro_step in range(2):
            # The run without the bad step takes the same batches in the others.
            number = step if bad is None or step <= bad else step - 1
            torch.manual_seed(100 * number + micro_step)
            batch = batch_of(job.model, 1, 5, 64)
            batch["pixels"] = batch["pixels"] * (1 + number + rank)
            if precision == "bf16":
                batch["pixels"] = batch["pixels"].bfloat16()
            if step == bad and rank == ranks - 1 and micro_step == 0:
                batch["pixels"] = batch["pixels"] * math.nan
            loss = engine(batch)["loss"]
            engine.backward(loss * admitted(loss))
            engine.step()
        applied.append(bool(engine.was_step_applied()))
    found: dict[str, torch.Tensor] = {}
    for name, weight in phase.model.named_parameters():
        with deepspeed.zero.GatheredParameters([weight], enabled=stage == 3):
            found[name] = weight.detach().clone()
    release(engine)
    return found, applied
