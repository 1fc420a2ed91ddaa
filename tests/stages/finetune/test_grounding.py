"""Fine-tuning for referring expressions: what is refused, and that a model learns where things are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError
from tokenizers import AddedToken, Tokenizer

from pipelines.fingerprint import fingerprinted
from stages.base.artifact import Artifact
from stages.base.contract import UserError
from stages.finetune.stage import Finetune

GROUNDING = {"kind": "grounding", "questions": None, "annotations": "world:test/r.json", "prompt": "<referring> {}"}


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"prompt": "where?"}, "one of {} for the caption and {box} for the box"),
        ({"prompt": "{} {box}"}, "one of {} for the caption and {box} for the box"),
        ({"max_text_tokens": 4}, "max_text_tokens of kind grounding is at least 5"),
        ({"questions": "q.json"}, "questions belongs to kind vqa"),
    ],
)
def test_what_cannot_be_a_grounding_task_is_refused_by_name(config: Any, fields: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        config(**{**GROUNDING, **fields})


def test_the_former_name_of_the_kind_is_taken_and_means_the_same(config: Any) -> None:
    former = config(**{**GROUNDING, "kind": "regions"})
    assert former == config(**GROUNDING)
    assert fingerprinted(former)["task"]["kind"] == "regions"  # artifacts made under that name stay up to date


def test_a_tokenizer_without_location_tokens_is_refused_before_any_worker_starts(
    run_stage: Any, inputs: Any, config: Any
) -> None:
    with pytest.raises(UserError, match=r"no <loc_0>.*tokenizer\.location_tokens=1000"):
        run_stage(Finetune(config(**GROUNDING)), inputs, cluster={"workers": 2, "max_failures": 0})


@pytest.fixture
def located(
    inputs: Any, sealed_artifact: Any, small_model: dict[str, Any], tmp_path: Path
) -> dict[str, list[Artifact]]:
    """A model that knows location tokens, and 40 images with one bright rectangle each."""
    import torch

    from models import registry
    from models.blip2.config import Blip2Config

    for name in ("model", "tokenizer", "world"):
        (tmp_path / name).mkdir()
    torch.manual_seed(0)
    described = Blip2Config.model_validate({**small_model, "vocabulary": 1300})
    registry.build(described).save_pretrained(tmp_path / "model" / "model")
    tokenizer = Tokenizer.from_file(str(inputs["tokenizer"][0].path("tokenizer.json")))
    tokenizer.add_tokens([AddedToken(f"<loc_{i}>", normalized=False) for i in range(1000)])
    tokenizer.add_tokens([AddedToken("<referring>", normalized=False)])
    tokenizer.save(str(tmp_path / "tokenizer" / "tokenizer.json"))
    (tmp_path / "tokenizer" / "tokenizer_config.json").write_text("{}")
    rows = []
    for image in range(40):
        pixels = np.full((16, 16, 3), 40, dtype=np.uint8)
        x, side = (0, "left") if image % 2 else (8, "right")
        pixels[4:12, x : x + 8] = 220
        Image.fromarray(pixels).save(tmp_path / "world" / f"{image}.png")
        rows.append({"image_id": image, "bbox": [x, 4, 8, 8], "caption": f"the one on the {side}"})
    (tmp_path / "world" / "r.json").write_text(json.dumps({"annotations": rows}))
    return {name: [sealed_artifact(tmp_path / name, name)] for name in ("model", "tokenizer", "world")}


@pytest.mark.slow
def test_a_model_learns_to_write_boxes(ray_session: None, run_stage: Any, located: Any, config: Any) -> None:
    varied = {"crop_scale": [0.6, 1.0], "horizontal_flip": 0.5}
    task = config(**GROUNDING, texts_per_image=1, steps=30, augmentation=varied)
    record = run_stage(Finetune(task), located, cluster={"workers": 2, "max_failures": 0}).read_json("train.json")
    assert record["prompt"] == "<referring> {}"
    assert record["phases"][0]["last_loss"] < record["phases"][0]["first_loss"] - 1
