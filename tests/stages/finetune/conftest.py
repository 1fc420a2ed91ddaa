"""A task, a tokenizer and a model small enough to train within seconds, as artifacts on disk."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers

from stages.base.artifact import Artifact
from stages.finetune.config import FinetuneConfig, TaskConfig

PIXELS = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
MODEL = {
    "architecture": "blip2",
    "name": "test",
    "vocabulary": 288,
    "vision": {
        "image_size": 16,
        "patch_size": 8,
        "width": 32,
        "layers": 2,
        "heads": 2,
        "mlp_width": 64,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    },
    "qformer": {"queries": 2, "width": 32, "layers": 2, "heads": 2, "mlp_width": 64, "dropout": 0.1},
    "language": {"width": 32, "layers": 2, "heads": 2, "mlp_width": 64, "positions": 64, "dropout": 0.1},
    "heads": {"projection": 16},
}


def sealed(folder: Path, stage: str) -> Artifact:
    files = [
        {"name": str(path.relative_to(folder)), "size": path.stat().st_size}
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]
    mark = hashlib.sha256(stage.encode()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps({"fingerprint": mark, "files": files, "counts": {}}))
    return Artifact(str(folder))


@pytest.fixture
def small_model() -> dict[str, Any]:
    """The config of `model`."""
    return MODEL


@pytest.fixture
def sealed_artifact() -> Any:
    """Makes an artifact of a folder, in the name of a stage."""
    return sealed


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Artifact]]:
    """`model` (random weights), `tokenizer` (bytes alone) and `world` (40 images, red or blue, two questions each)."""
    import torch

    from models import registry
    from models.blip2.config import Blip2Config

    root = tmp_path_factory.mktemp("finetune-inputs")
    for name in ("model", "tokenizer", "world"):
        (root / name).mkdir()
    torch.manual_seed(0)
    registry.build(Blip2Config.model_validate(MODEL)).save_pretrained(root / "model" / "model")

    alphabet = ["<pad>", "<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.save(str(root / "tokenizer" / "tokenizer.json"))
    (root / "tokenizer" / "tokenizer_config.json").write_text("{}")

    questions: list[dict[str, Any]] = []
    answers: list[dict[str, Any]] = []
    draw = np.random.default_rng(0)
    for image in range(40):
        color = "red" if image % 2 else "blue"
        pixels = draw.integers(0, 60, (16, 16, 3), dtype=np.uint8)
        pixels[..., 0 if image % 2 else 2] += 180
        Image.fromarray(pixels).save(root / "world" / f"{image}.png")
        for question in ("color?", "hue?"):
            key = {"question_id": len(questions), "image_id": image}
            questions.append({**key, "question": question})
            answers.append({**key, "multiple_choice_answer": color})
    (root / "world" / "q.json").write_text(json.dumps({"questions": questions}))
    (root / "world" / "a.json").write_text(json.dumps({"annotations": answers}))
    return {name: [sealed(root / name, name)] for name in ("model", "tokenizer", "world")}


@pytest.fixture
def config() -> Any:
    """Makes a stage config; keyword arguments are the task's fields."""

    def make(**fields: Any) -> FinetuneConfig:
        task = {
            "kind": "vqa",
            "questions": "world:test/q.json",
            "annotations": "world:test/a.json",
            "images": "world:test/.",
            "image_pattern": "{image_id}.png",
            "prompt": "Q: {}",
            "texts_per_image": 2,
            "steps": 12,
            "lr": 3e-3,
            "global_batch": 8,
            "micro_batch": 2,
            "log_every": 3,
            "checkpoint_every": 5,
            "augmentation": {"crop_scale": [0.6, 1.0]},
        }
        return FinetuneConfig(name="test", task=TaskConfig.model_validate({**task, **fields}))

    return make
