"""A real run of a small model on two ranks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models

from models.blip2.config import Blip2Config
from stages.base.artifact import Artifact
from stages.base.contract import StageContext
from stages.train.config import TrainConfig
from stages.train.job import PairSource, make_job
from stages.train.launch import train
from stages.train.trainer.hooks import Hook

MODEL = {
    "architecture": "blip2",
    "name": "test",
    "vocabulary": 64,
    "vision": {"image_size": 16, "patch_size": 8, "width": 16, "layers": 1, "heads": 2, "mlp_width": 16},
    "qformer": {"queries": 2, "width": 16, "layers": 1, "heads": 2, "mlp_width": 16},
    "language": {"width": 16, "layers": 1, "heads": 2, "mlp_width": 16, "positions": 16},
    "heads": {"projection": 8},
}


@pytest.fixture
def tokenizer(tmp_path: Path) -> Artifact:
    """A tokenizer of three control tokens and nothing else."""
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    vocabulary = {token: number for number, token in enumerate(["<pad>", "<s>", "</s>"])}
    Tokenizer(models.BPE(vocabulary, [])).save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text("{}")
    (folder / "manifest.json").write_text('{"fingerprint": "0", "files": [], "counts": {}}')
    return Artifact(str(folder))


@pytest.fixture
def run(ray_session: None, pair_files: Any, tokenizer: Artifact, tmp_path: Path) -> Callable[..., Path]:
    """Trains a small model on two ranks with further hooks; returns the artifact's folder, beside which `scratch`
    lies. `more` and `recipe` are settings of the recipe, `earlier` the scratch folders of earlier runs."""
    shards, tokens = pair_files([12, 12])
    inputs = {"shards": (shards,), "tokens": (tokens,), "tokenizer": (tokenizer,)}

    def make(
        hooks: Sequence[Callable[[], Hook]] = (),
        name: str = "run",
        failures: int = 0,
        phases: int = 1,
        earlier: Mapping[str, str] | None = None,
        recipe: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> Path:
        folder = tmp_path / name
        (folder / "out").mkdir(parents=True, exist_ok=True)
        cluster = {"workers": 2, "cpus_per_worker": 1, "gpus_per_worker": 0, "max_failures": failures}
        context = StageContext(
            inputs, folder / "out", folder, str(folder / "scratch"), cluster, earlier=dict(earlier or {})
        )
        settings = TrainConfig.model_validate(
            {
                "phases": [{"objective": "language_modeling", "steps": 6}] * phases,
                "global_batch": 8,
                "max_text_tokens": 8,
                "micro_batch": 2,
                "log_every": 2,
                "checkpoint_every": 100,
                **more,
                **(recipe or {}),
            }
        )
        model = Blip2Config.model_validate(MODEL)
        source = PairSource(shards, tokens)
        train(make_job("train", settings, settings.phases, model, None, source, context, "fp32", hooks), context)
        return folder / "out"

    return make
