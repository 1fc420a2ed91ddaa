"""Scaled XL models in training: no rank takes much more memory than its states, at start, in training, at the save."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from models import registry
from tests.stages.train.trainer.rehearsal import run, write_folder

CONF = Path(__file__).parents[4] / "conf" / "model"
#: Greatest share of the ideal: what a rank's weights, masters, gradients and moments take.
MOST = 1.3
#: What a process needs whatever the model: allocator, communicator, blocks that are read and written.
FIXED = 100e6


def tiny(name: str) -> dict[str, Any]:
    fields: dict[str, Any] = yaml.safe_load((CONF / f"{name}.yaml").read_text(encoding="utf-8"))
    return fields


def check(measured: list[dict[str, Any]], weights: float, optimizer: float, gradients: float, transient: float) -> None:
    """``weights`` and their masters, ``optimizer`` moments, ``gradients``: bytes of a rank; ``transient``: gathered
    weights and activations."""
    for rank in measured:
        print({name: round(value / 1e6) for name, value in rank.items() if name != "losses"})
        assert rank["start"] <= MOST * weights + FIXED
        assert rank["training"] <= MOST * (weights + optimizer + gradients) + transient + FIXED
        assert rank["save"] <= MOST * (weights + optimizer + gradients) + FIXED
        assert rank["export"] <= 2 * FIXED
        assert rank["held_after_engine"] <= FIXED  # the next phase finds the memory free
        assert all(loss == loss for loss in rank["losses"])


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 4])
def test_a_frozen_language_model_from_a_sharded_folder_under_zero_3(ranks: int, tmp_path: Path) -> None:
    from transformers import CLIPVisionModel, OPTForCausalLM

    model: dict[str, Any] = {
        "architecture": "blip2",
        "name": "rehearsal",
        "vocabulary": 50272,
        "vision": {"image_size": 224, "patch_size": 14, "width": 1024, "layers": 24, "heads": 16, "mlp_width": 4096},
        "qformer": {"queries": 32, "width": 512, "layers": 6, "heads": 8, "mlp_width": 2048, "dropout": 0.0},
        "language": {"width": 1536, "layers": 24, "heads": 16, "mlp_width": 6144},
        "adapters": {"every": 2, "gate": 0.0},
    }
    shape, _ = registry.construct(registry.model_config(model))
    write_folder(tmp_path / "language", shape.language.config, OPTForCausalLM, torch.bfloat16, 4)
    write_folder(tmp_path / "vision", shape.vision.config, CLIPVisionModel, torch.bfloat16, 2)
    folders = {part: str(tmp_path / part) for part in ("language", "vision")}
    case = {
        "model": {**model, "initialise_from": folders},
        "warm_up": tiny("blip2_tiny"),
        "settings": {
            "global_batch": ranks,
            "micro_batch": 1,
            "zero": {"stage": 3},
            "activation_checkpointing": {"language": 1},
        },
        "phase": {"objective": "language_modeling", "steps": 2, "trainable": ["qformer", "adapters"]},
        "precision": "bf16",
        "texts": 32,
    }
    counted = registry.count_parameters(registry.model_config(model))
    used = sum(counted[part] for part in ("vision", "qformer", "adapters", "language"))
    assert used > 1e9
    learning = counted["qformer"] + counted["adapters"]
    embeddings = 50272 * 1536
    check(
        run(ranks, tmp_path / "scratch", case),
        weights=(2 * used + 4 * learning) / ranks,
        optimizer=8 * learning / ranks,
        gradients=2 * learning / ranks + 2 * min(learning, 100e6),  # and the bucket they are reduced in
        transient=3 * 2 * embeddings,  # the largest matrix in use, the next on its way, and a copy where it arrives
    )


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 4])
def test_tensor_parallel_two_under_zero_1(ranks: int, tmp_path: Path) -> None:
    width, vocabulary = 1280, 65536
    model = {
        "architecture": "florence2",
        "name": "rehearsal",
        "vocabulary": vocabulary,
        "vision": {"image_size": 224, "patch_size": 16, "width": 768, "layers": 8, "heads": 12, "mlp_width": 3072},
        "reconstruction": {"width": 256, "layers": 2, "heads": 8, "mlp_width": 1024},
        "language": {
            "width": width,
            "encoder_layers": 10,
            "decoder_layers": 10,
            "heads": 16,
            "mlp_width": 5120,
            "positions": 512,
            "dropout": 0.0,
        },
    }
    case = {
        "model": model,
        "warm_up": tiny("florence2_tiny"),
        "settings": {
            "global_batch": ranks // 2,
            "micro_batch": 1,
            "zero": {"stage": 1},
            "activation_checkpointing": {"language": 1, "vision": 1},
        },
        "phase": {"objective": "sequence_to_sequence", "steps": 2},
        "precision": "bf16",
        "texts": 32,
        "tensor_parallel": 2,
    }
    counted = registry.count_parameters(registry.model_config(model))
    used = sum(counted[part] for part in ("vision", "projector", "language"))
    assert used > 0.5e9
    replicated = vocabulary * width  # the embeddings, which are the output layer, too
    own, copies = (used - replicated) / 2 + replicated, ranks // 2
    check(
        run(ranks, tmp_path / "scratch", case),
        weights=2 * own + 4 * own / copies,
        optimizer=8 * own / copies,
        gradients=2 * own + 4 * 100e6,  # and a group's in float32
        transient=4 * replicated / 2,  # the output layer's gradient in float32, of the rank's share of the vocabulary
    )
