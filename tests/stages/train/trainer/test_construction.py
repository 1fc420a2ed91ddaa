"""A phase's model is the same whatever divides it: ranks, ZeRO stage, tensor parallelism, precision of the weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml

from models import registry
from stages.tokenizer.special import SpecialIds
from stages.train.config import OptimizationConfig, PhaseConfig, ZeroConfig
from stages.train.job import TrainingJob
from tests.stages.train.trainer.launch_ranks import launch_ranks

CONF = Path(__file__).parents[4] / "conf" / "model"
PHASES = {
    "blip2": [
        PhaseConfig(objective="representation", steps=1),
        PhaseConfig(objective="language_modeling", steps=1, trainable=["qformer", "adapters"]),
    ],
    "florence2": [
        PhaseConfig(objective="masked_autoencoding", steps=1),
        PhaseConfig(objective="sequence_to_sequence", steps=1),
    ],
}


def job(architecture: str, scratch: Path, **changes: Any) -> TrainingJob:
    fields = yaml.safe_load((CONF / f"{architecture}_tiny.yaml").read_text(encoding="utf-8"))
    made = TrainingJob(
        key="train",
        settings=OptimizationConfig(global_batch=8, micro_batch=2, seed=5),
        phases=PHASES[architecture],
        model=registry.model_config({**fields, "vocabulary": 512}),
        initial=None,
        source=None,  # type: ignore[arg-type]
        tokenizer="",
        special=SpecialIds(),
        scratch=str(scratch),
        precision="fp32",
        threads=1,
        tensor_parallel=1,
    )
    return replace(made, **changes)


def check_and_save(scratch: str, cases: list[dict[str, Any]]) -> None:
    """What each rank runs: build every case's engine, compare its shards, and write them."""
    from stages.train.trainer.construction import (
        construct,
        local_values,
        master_shard,
        save_phase_weights,
        weight_shard,
    )
    from stages.train.trainer.deepspeed_engine import build_engine
    from stages.train.trainer.ranks import RankInfo

    rank, ranks = torch.distributed.get_rank(), torch.distributed.get_world_size()
    for number, case in enumerate(cases):
        zero = ZeroConfig(stage=case["stage"], frozen_shards=case.get("frozen_shards"))
        made = job(case["architecture"], Path(scratch), precision=case["precision"], tensor_parallel=case["tensor"])
        made = replace(made, settings=made.settings.model_copy(update={"zero": zero}))
        info = RankInfo(rank, ranks, case["tensor"], torch.device("cpu"))
        phase = construct(made, case["phase"])
        engine = build_engine(made, info, phase, 1)
        dtype = torch.bfloat16 if case["precision"] == "bf16" else torch.float32
        for name, weight in phase.model.named_parameters():
            values = local_values(phase.values[name], weight)
            held, master = weight_shard(weight), master_shard(engine, weight)
            assert torch.equal(held.tensor, values.flat(held.start, held.stop).to(dtype)), (case, name)
            if master is not None:
                assert master.tensor.dtype == torch.float32, (case, name)
                assert torch.equal(master.tensor, values.flat(master.start, master.stop)), (case, name)
        save_phase_weights(engine, phase.model, info, Path(scratch, f"case-{number}-of-{ranks}"))
        torch.distributed.barrier()
        engine.destroy()


# Tensor-parallel ones last: a process in which DeepSpeed has split one model splits every later one.
CASES = [
    {"architecture": architecture, "stage": stage, "precision": precision, "tensor": tensor, "phase": phase}
    for stage, precision, tensor, phase in (
        (0, "fp32", 1, 0),
        (0, "bf16", 1, 1),
        (1, "fp32", 1, 0),
        (2, "bf16", 1, 0),
        (3, "fp32", 1, 1),
        (3, "bf16", 1, 0),
        (1, "bf16", 2, 1),
        (3, "bf16", 2, 1),
        (1, "fp32", 2, 0),
    )
    for architecture in PHASES
]


def test_every_division_starts_from_the_same_weights_and_saves_them_exactly(tmp_path: Path) -> None:
    from stages.train.trainer.construction import construct
    from stages.train.trainer.phase_weights import read_phase_weights

    launch_ranks(2, check_and_save, str(tmp_path), CASES)
    alone = [{**case, "tensor": 1} for case in CASES[:4]]
    launch_ranks(1, check_and_save, str(tmp_path), alone)
    for ranks, cases in ((2, CASES), (1, alone)):
        for number, case in enumerate(cases):
            phase = construct(job(case["architecture"], tmp_path), case["phase"])
            saved = read_phase_weights(tmp_path / f"case-{number}-of-{ranks}")
            learning = {name for name, weight in phase.model.named_parameters() if weight.requires_grad}
            assert set(saved) == learning, case
            for name in learning:
                assert torch.equal(saved[name].whole(), phase.values[name].whole()), (case, name)
