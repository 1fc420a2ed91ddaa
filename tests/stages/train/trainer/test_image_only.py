"""A real run over pairs and images without a text: each phase sees its own; a killed run equals one that was not."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import ray.cloudpickle

from models.florence2.config import Florence2Config
from stages.base.artifact import Artifact
from stages.base.contract import StageContext, UserError
from stages.pretrain.config import PretrainConfig
from stages.pretrain.stage import Pretrain
from stages.train.trainer.hooks import Hook, StepResult

MODEL = Florence2Config.model_validate(
    {
        "architecture": "florence2",
        "name": "test",
        "vocabulary": 64,
        "vision": {"image_size": 16, "patch_size": 8, "width": 16, "layers": 1, "heads": 2, "mlp_width": 16},
        "reconstruction": {"width": 16, "layers": 1, "heads": 2, "mlp_width": 16},
        "language": {
            "width": 16,
            "encoder_layers": 1,
            "decoder_layers": 1,
            "heads": 2,
            "mlp_width": 16,
            "positions": 16,
        },
    }
)
# Ranks cannot import this module: its classes travel whole.
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])


class FailsOnce(Hook):
    """Requests a checkpoint after every step, and fails once in each phase."""

    def __init__(self, folder: Path, step: int) -> None:
        self.folder, self.step = folder, step

    def on_step(self, trainer: Any, step: StepResult) -> None:
        trainer.request_checkpoint()
        mark = self.folder / f"failed-{trainer.phase}-{trainer.ranks.rank}"
        if step.step == self.step and not mark.exists():
            mark.write_text("")
            raise RuntimeError("the hook failed on purpose")


def config(**train: Any) -> PretrainConfig:
    phases = [
        {"objective": "masked_autoencoding", "epochs": 1, "settings": {"mask_ratio": 0.5}},
        {"objective": "sequence_to_sequence", "epochs": 2},
    ]
    settings = {"phases": phases, "global_batch": 8, "micro_batch": 2, "max_text_tokens": 8, "log_every": 1}
    settings["checkpoint_every"] = 100
    return PretrainConfig.model_validate({"model": MODEL, "train": {**settings, **train}})


@pytest.fixture
def inputs(pair_files: Any, tokenizer: Artifact) -> Callable[..., dict[str, tuple[Artifact, ...]]]:
    def make(sources: Sequence[str]) -> dict[str, tuple[Artifact, ...]]:
        shards, tokens = pair_files([14, 10], sources, image_only=["images"])
        return {"shards": (shards,), "tokens": (tokens,), "tokenizer": (tokenizer,)}

    return make


def context(folder: Path, inputs: Any, failures: int = 0) -> StageContext:
    (folder / "out").mkdir(parents=True)
    cluster = {"workers": 2, "cpus_per_worker": 1, "gpus_per_worker": 0, "max_failures": failures}
    return StageContext(inputs, folder / "out", folder, str(folder / "scratch"), cluster)


@pytest.mark.parametrize("train", [{}, {"mixture": {"images": 1.0}}])
def test_without_any_text_a_phase_that_needs_some_is_refused_before_a_worker_starts(
    inputs: Any, tmp_path: Path, train: dict[str, Any]
) -> None:
    stage = Pretrain(config(**train))
    with pytest.raises(UserError, match=r"train\.phases\[1\]\.objective=sequence_to_sequence needs texts"):
        stage.run(stage.partitions({})[0], context(tmp_path / "run", inputs(["images"] * 24)))


@pytest.mark.slow
def test_each_phase_sees_its_own_samples_and_goes_on_where_it_was_killed(
    ray_session: None, inputs: Any, tmp_path: Path
) -> None:
    from stages.train.job import PairSource, make_job
    from stages.train.launch import train

    held = inputs([("s", "images")[number % 3 == 0] for number in range(24)])
    histories, weights = [], []
    for name, hooks in (("whole", []), ("killed", [partial(FailsOnce, tmp_path, 2)])):
        settings = config().train
        made = context(tmp_path / name, held, failures=4)
        source = PairSource(held["shards"][0], held["tokens"][0])
        train(make_job("train", settings, settings.phases, MODEL, None, source, made, "fp32", hooks), made)
        record = json.loads((made.out / "train.json").read_text())
        assert [phase["steps"] for phase in record["phases"]] == [3, 4]  # 24 samples once, 16 pairs twice, by 8
        lines = [json.loads(line) for line in (made.out / "history.jsonl").read_text().splitlines()]
        histories.append([(line["step"], line["metrics"]["loss"], line["metrics"]["grad_norm"]) for line in lines])
        weights.append((made.out / "model" / "model.safetensors").read_bytes())
    assert len(histories[0]) == 7
    assert histories[0] == histories[1]
    assert weights[0] == weights[1]
    assert len(list(tmp_path.glob("failed-*"))) >= 2
