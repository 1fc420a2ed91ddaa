"""An architecture from outside the tree: the package that docs/adding-a-model.md shows, registered and pretrained."""

from __future__ import annotations

import importlib
import re
import shutil
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from models import registry
from models.common.errors import UserError
from pipelines import capacity, compose
from stages.base.artifact import Artifact
from stages.pretrain.config import PretrainConfig
from stages.pretrain.stage import Pretrain
from stages.train.config import CLIP_MEAN, CLIP_STD

GUIDE = Path(__file__).parents[3] / "docs" / "adding-a-model.md"


@pytest.fixture(scope="module")
def installed(outside_packages: Path) -> Iterator[None]:
    """The guide's package as pip would leave it: its files, and metadata with its entry points."""
    guide = GUIDE.read_text("utf-8")
    files = dict(re.findall(r"`(pairmill_toy/[\w./]+)`.*?```\w+\n(.*?)```", guide, re.DOTALL))
    assert len(files) == 4
    for name, content in files.items():
        (outside_packages / name).parent.mkdir(parents=True, exist_ok=True)
        (outside_packages / name).write_text(content)
    (project,) = re.findall(r"```toml\n(.*?)```", guide, re.DOTALL)
    described = tomllib.loads(project)["project"]
    metadata = outside_packages / "pairmill_toy-1.0.dist-info"
    metadata.mkdir()
    name, version = described["name"], described["version"]
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    groups = described["entry-points"].items()
    lines = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in entries.items()) for group, entries in groups]
    (metadata / "entry_points.txt").write_text("\n".join(lines))
    importlib.invalidate_caches()
    registry.clear_cache()
    yield
    shutil.rmtree(metadata)
    shutil.rmtree(outside_packages / "pairmill_toy")
    for module in [name for name in sys.modules if name.split(".")[0] == "pairmill_toy"]:
        del sys.modules[module]
    registry.clear_cache()


@pytest.fixture
def toy(installed: None) -> dict[str, Any]:
    """A model's config, for the tokenizer of these tests."""
    return {"architecture": "toy", "name": "toy_test", "vocabulary": 288, "vision": {"image_size": 16}, "width": 32}


def test_the_command_line_chooses_and_validates_it_like_any_other(installed: None) -> None:
    config = compose.load(["model=toy_tiny", "model.width=48"])
    assert (config.model.name, config.model_dump()["model"]["width"]) == ("toy_tiny", 48)
    assert config.train.phases[0].objective == "captioning"
    assert capacity.needs(config.model, config.train, config.cluster)["parameters"] > 6144 * 48
    with pytest.raises(UserError, match=r"^model\.widht: unknown key; did you mean width\?"):
        compose.load(["model=toy_tiny", "model.widht=48"])
    with pytest.raises(UserError, match=r"choose one of blip2_smol, .*, florence2_xl, toy_tiny"):
        compose.load(["model=toy_big"])


def test_its_count_equals_that_of_its_modules(toy: dict[str, Any]) -> None:
    config = registry.model_config(toy)
    parts = registry.build(config).named_parts()
    counted = {name: sum(weight.numel() for weight in part.parameters()) for name, part in parts.items()}
    assert registry.count_parameters(config) == counted


def test_weights_for_a_part_that_cannot_start_from_any_are_refused(toy: dict[str, Any], tmp_path: Path) -> None:
    model = {**toy, "initialise_from": {"language": str(tmp_path)}}
    train = {"phases": [{"objective": "captioning", "steps": 1}]}
    with pytest.raises(UserError, match=r"initialise_from\.language: architecture 'toy' starts from no language model"):
        Pretrain(PretrainConfig.model_validate({"model": model, "train": train})).check()


@pytest.mark.slow
def test_it_is_pretrained_saved_and_loaded(ray_session: None, toy: dict[str, Any], run_stage: Any, inputs: Any) -> None:
    train = {
        "phases": [{"objective": "captioning", "steps": 20}],
        "lr": 1e-2,
        "global_batch": 8,
        "micro_batch": 8,
        "log_every": 5,
    }
    made: Artifact = run_stage(Pretrain(PretrainConfig.model_validate({"model": toy, "train": train})), inputs)
    (phase,) = made.read_json("train.json")["phases"]
    assert phase["steps"] == 20
    assert phase["last_loss"] < phase["first_loss"] - 1
    saved = registry.saved_config(made.path("model"))
    assert (saved.vision.image_mean, saved.vision.image_std) == (CLIP_MEAN, CLIP_STD)  # what it was trained with
    assert saved.model_dump(exclude={"vision"}) == registry.model_config(toy).model_dump(exclude={"vision"})
    model: Any = registry.load(made.path("model"))
    ids, none = torch.tensor([[5, 6, 2]]), torch.zeros(1, 0, dtype=torch.long)
    logits = model(torch.zeros(1, 3, 16, 16), torch.tensor([0]), none, none, ids, torch.ones_like(ids))
    assert logits.shape == (1, 3, 288)
    assert torch.isfinite(logits).all()
