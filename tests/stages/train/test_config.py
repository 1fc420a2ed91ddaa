"""The recipes and tasks that ship, and what configs refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from models import registry
from stages.base.contract import UserError
from stages.finetune.config import TaskConfig
from stages.pretrain.config import PretrainConfig
from stages.train.config import AugmentationConfig, PhaseConfig, TrainConfig, ZeroConfig
from stages.train.trainer.schedule import accumulation_steps

CONF = Path(__file__).resolve().parents[3] / "conf"
RECIPES = sorted(path.stem for path in (CONF / "recipe").glob("*.yaml"))
TASKS = sorted(path.stem for path in (CONF / "task").glob("*.yaml"))


def load(group: str, name: str) -> Any:
    return yaml.safe_load((CONF / group / f"{name}.yaml").read_text())


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_fits_the_model_of_its_name(name: str) -> None:
    config = PretrainConfig.model_validate({"model": load("model", name), "train": load("recipe", name)})
    for phase in config.train.phases:
        assert phase.objective in registry.spec(config.model.architecture).objectives
        assert set(phase.trainable or ()) <= set(registry.objective_parts(config.model, phase.objective))


@pytest.mark.parametrize(
    ("name", "ranks", "accumulation"),
    [("blip2_xl", 128, 1), ("florence2_xl", 64, 4), ("blip2_tiny", 2, 1), ("florence2_tiny", 2, 1)],
)
def test_published_batches_divide_over_their_clusters(name: str, ranks: int, accumulation: int) -> None:
    assert accumulation_steps(TrainConfig.model_validate(load("recipe", name)), ranks, "train") == accumulation


@pytest.mark.parametrize("name", TASKS)
def test_a_task_writes_text_whatever_the_architecture(name: str) -> None:
    task = TaskConfig.model_validate(load("task", name))
    for architecture in registry.architectures():
        assert task.phase(architecture).objective == registry.spec(architecture).text_objective


@pytest.mark.parametrize(
    ("schema", "fields", "says"),
    [
        (PhaseConfig, {"objective": "a"}, "exactly one of steps and epochs"),
        (PhaseConfig, {"objective": "a", "steps": 1, "epochs": 1}, "exactly one of steps and epochs"),
        (ZeroConfig, {"stage": 4}, "stage"),
        (ZeroConfig, {"stage": 0, "offload_optimizer": True}, "offload_optimizer"),
        (AugmentationConfig, {"crop_scale": [0.9, 0.5]}, "crop_scale"),
        (TrainConfig, {"phases": []}, "phases"),
        (TrainConfig, {"phases": [{"objective": "a", "steps": 1}], "lr": 0}, "lr"),
        (TaskConfig, {"kind": "vqa", "annotations": "a", "images": "i", "steps": 1, "prompt": "{}"}, "questions"),
        (TaskConfig, {"kind": "captions", "annotations": "a", "images": "i", "steps": 1, "prompt": "{}"}, "prompt"),
    ],
)
def test_bad_values_are_refused_by_name(schema: Any, fields: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        schema.model_validate(fields)


def test_parts_that_could_not_learn_are_no_choice() -> None:
    with pytest.raises(ValidationError, match="trainable\n  Value error, names no part, so nothing would learn"):
        PhaseConfig.model_validate({"objective": "representation", "steps": 1, "trainable": []})
    with pytest.raises(ValidationError, match="names no part"):
        TaskConfig.model_validate({**load("task", "captions"), "trainable": []})
    model = registry.model_config(load("model", "blip2_tiny"))
    phase = PhaseConfig(objective="representation", steps=1, trainable=["heads", "qformer"])
    assert phase.learning_parts("train.phases[0]", model) == ("qformer", "heads")
    phase = PhaseConfig(objective="representation", steps=1, settings={"smoothing": 0.1})
    with pytest.raises(
        UserError, match=r"^tasks\.x\.settings\.smoothing of representation: unknown; its settings are con"
    ):
        phase.learning_parts("tasks.x", model)
    phase = PhaseConfig(objective="language_modeling", steps=1, settings={"label_smoothing": 1.5})
    with pytest.raises(
        UserError, match=r"settings\.label_smoothing of language_modeling: input should be less than 1; "
    ):
        phase.learning_parts("tasks.x", model)
    unused = PhaseConfig(objective="representation", steps=1, trainable=["qformer", "adapters"])
    with pytest.raises(
        UserError, match=r"^train\.phases\[0\]\.trainable: representation uses no part 'adapters'.*vision"
    ):
        unused.learning_parts("train.phases[0]", model)
