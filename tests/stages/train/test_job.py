"""What the driver checks before it hands a job to workers."""

from __future__ import annotations

import pytest

from models import registry
from stages.base.contract import UserError
from stages.train.config import OptimizationConfig
from stages.train.job import check_checkpointing, check_vocabulary
from tests.stages.train.trainer.gradients import MODELS


def test_a_tokenizer_larger_than_the_model_is_refused_with_both_keys() -> None:
    check_vocabulary(100, 100)
    check_vocabulary(128, 100)
    with pytest.raises(UserError, match=r"tokenizer.vocabulary=101 .* model.vocabulary=100"):
        check_vocabulary(100, 101)


def test_checkpointing_a_part_that_has_no_layers_or_does_not_exist_is_refused_with_its_key() -> None:
    model = registry.model_config(MODELS["blip2"])
    settings = {
        part: OptimizationConfig(activation_checkpointing={"language": 1, part: 2})
        for part in ("vision", "adapters", "reconstruction")
    }
    check_checkpointing("train", settings["vision"], model)
    with pytest.raises(UserError, match=r"^train\.activation_checkpointing: adapters has no transformer layers; give "):
        check_checkpointing("train", settings["adapters"], model)
    with pytest.raises(
        UserError, match=r"^tasks\.vqa\.activation_checkpointing: reconstruction is no part of the model"
    ):
        check_checkpointing("tasks.vqa", settings["reconstruction"], model)
