"""The plan's memory against the measured peak of real DeepSpeed engines: 2 ranks over gloo, every ZeRO stage."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.cluster import ClusterConfig
from pipelines.plan.phase import PhasePlan
from stages.train.config import TrainConfig
from tests.models.conftest import read

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = Path(__file__).with_name("measured_rank.py")

MODELS: dict[str, dict[str, Any]] = {
    "blip2_tiny": {
        "vocabulary": 8192,
        "vision": {"image_size": 64, "patch_size": 8, "width": 256, "layers": 8, "heads": 4, "mlp_width": 1024},
        "qformer": {
            "queries": 16,
            "width": 256,
            "layers": 4,
            "heads": 4,
            "mlp_width": 1024,
            "cross_attention_every": 2,
            "text_positions": 64,
            "dropout": 0.0,
        },
        "language": {"width": 384, "layers": 8, "heads": 4, "mlp_width": 1536, "positions": 128},
        "adapters": {"every": 2},
    },
    "florence2_tiny": {
        "vocabulary": 8192,
        "vision": {"image_size": 64, "patch_size": 8, "width": 256, "layers": 6, "heads": 4, "mlp_width": 1024},
        "reconstruction": {"width": 256, "layers": 3, "heads": 4, "mlp_width": 1024},
        "language": {
            "width": 320,
            "encoder_layers": 4,
            "decoder_layers": 4,
            "heads": 4,
            "mlp_width": 1280,
            "positions": 128,
            "dropout": 0.0,
        },
    },
}

#: Objective -> model, parts that learn, parts with layers.
PHASES: dict[str, tuple[str, list[str], list[str]]] = {
    "representation": ("blip2_tiny", ["qformer", "qformer_text", "heads"], ["qformer"]),
    "language_modeling": ("blip2_tiny", ["qformer", "adapters"], ["qformer", "language"]),
    "masked_autoencoding": ("florence2_tiny", ["vision", "reconstruction"], ["vision", "reconstruction"]),
    "sequence_to_sequence": ("florence2_tiny", ["vision", "projector", "language"], ["vision", "language"]),
}


class Ranks:
    """The program that starts ranks and measures them."""

    def __init__(self) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, str(PROGRAM)]
        self._program = subprocess.Popen(
            command, cwd=ROOT, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def measure(self, settings: dict[str, Any]) -> list[dict[str, float]]:
        """Moment -> highest memory by then, in bytes, of each rank."""
        assert self._program.stdin is not None
        assert self._program.stdout is not None
        print(json.dumps(settings), file=self._program.stdin, flush=True)
        answer = json.loads(self._program.stdout.readline())
        assert "error" not in answer, answer["error"]
        peaks: list[dict[str, float]] = answer["peaks"]
        return peaks

    def stop(self) -> None:
        """End it."""
        self._program.communicate()


@pytest.fixture(scope="module")
def ranks() -> Iterator[Ranks]:
    started = Ranks()
    yield started
    started.stop()


def planned_and_measured(
    ranks: Ranks, objective: str, stage: int, precision: str, checkpointing: bool, folder: Path
) -> tuple[PhasePlan, dict[str, float]]:
    """The plan of a phase on two CPU ranks, and the measured peaks of the ranks, the greater of the two."""
    name, trainable, layered = PHASES[objective]
    model = read(name, **MODELS[name])
    train = TrainConfig(
        global_batch=32,
        micro_batch=8,
        zero={"stage": stage},
        activation_checkpointing=dict.fromkeys(layered, 1) if checkpointing else {},
        loss_chunk=128,
        max_text_tokens=32,
        phases=[{"objective": objective, "steps": 1, "trainable": trainable}],
    )
    plan = PhasePlan(model, train, ClusterConfig(workers=2, precision=precision), 0)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {
        "model": model.model_dump(),
        "train": train.model_dump(),
        "precision": precision,
        "ranks": 2,
        "port": port,
        "scratch": str(folder),
        "seconds": 500,
    }
    found = ranks.measure(settings)
    return plan, {moment: max(each[moment] for each in found) for moment in found[0]}


def check(ranks: Ranks, objective: str, stage: int, precision: str, checkpointing: bool, folder: Path) -> None:
    plan, measured = planned_and_measured(ranks, objective, stage, precision, checkpointing, folder)
    greatest = max(measured.values())
    print(
        f"{objective} ZeRO-{stage} {precision} {'with' if checkpointing else 'without'} checkpointing: planned"
        f" {plan.peak.total / 1e6:.1f} MB ({plan.peak.name}), measured {greatest / 1e6:.1f} MB:"
        f" {plan.peak.total / greatest - 1:+.1%}"
    )
    assert plan.peak.total == pytest.approx(greatest, rel=0.1), (plan.peak, measured)


def test_planned_memory_is_what_a_small_training_takes(ranks: Ranks, tmp_path: Path) -> None:
    check(ranks, "language_modeling", 1, "fp32", True, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize(
    ("objective", "precision"),
    [
        ("sequence_to_sequence", "fp32"),
        ("language_modeling", "fp32"),
        ("sequence_to_sequence", "bf16"),
        ("representation", "bf16"),
        ("masked_autoencoding", "fp32"),
    ],
)
def test_planned_memory_is_what_each_stage_takes(
    ranks: Ranks,
    objective: str,
    precision: str,
    stage: int,
    checkpointing: bool,
    tmp_path: Path,
) -> None:
    check(ranks, objective, stage, precision, checkpointing, tmp_path)
