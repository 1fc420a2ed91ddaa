"""Saved models: the same outputs after a round trip, no private paths inside, and parts that start from folders."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import CLIPVisionModel, MBartForConditionalGeneration, OPTForCausalLM, ViTModel

from models import registry
from models.common.batch import Batch
from models.common.errors import UserError
from models.common.position_embeddings import resize_positions


def test_a_loaded_model_gives_equal_outputs(either: Any, batch: Batch, tmp_path: Path) -> None:
    model = registry.build(either).eval()
    model.save_pretrained(tmp_path)
    texts = [batch[k] for k in ("image_index", "prompt_ids", "prompt_mask", "target_ids", "target_mask")]  # type: ignore[literal-required]
    loaded = registry.load(tmp_path)
    assert not loaded.training
    torch.testing.assert_close(loaded(batch["pixels"], *texts), model(batch["pixels"], *texts), rtol=0, atol=0)
    for (name, saved), (_, kept) in zip(loaded.state_dict().items(), model.state_dict().items(), strict=True):
        assert torch.equal(saved, kept), name


def test_equal_seeds_build_equal_models(either: Any) -> None:
    built = [registry.build(either, seed=11).state_dict() for _ in range(2)]
    assert all(torch.equal(built[0][name], built[1][name]) for name in built[0])


def test_paths_of_starting_weights_are_not_saved(config: Callable[..., Any], tmp_path: Path) -> None:
    part = registry.build(config("blip2_tiny", vocabulary=60))
    OPTForCausalLM(part.language.config).save_pretrained(tmp_path / "opt")
    shape = config("blip2_tiny", vocabulary=60, initialise_from={"language": str(tmp_path / "opt")})
    registry.build(shape).save_pretrained(tmp_path / "whole")
    assert str(tmp_path) not in (tmp_path / "whole" / "config.json").read_text(encoding="utf-8")


def test_blip2_parts_start_from_local_folders(config: Callable[..., Any], tmp_path: Path) -> None:
    shape = config("blip2_tiny", vocabulary=60)
    donor = registry.build(shape)
    vision = CLIPVisionModel(donor.vision.config)
    language = OPTForCausalLM(donor.language.config)
    vision.save_pretrained(tmp_path / "vision")
    language.save_pretrained(tmp_path / "language")
    donor.qformer.body.save_pretrained(tmp_path / "qformer")
    folders = {part: str(tmp_path / part) for part in ("vision", "language", "qformer")}
    started = registry.build(config("blip2_tiny", vocabulary=60, initialise_from=folders))
    for part, source in (("vision", vision), ("language", language), ("qformer.body", donor.qformer.body)):
        own = started.get_submodule(part).state_dict()
        assert all(torch.equal(own[name], value) for name, value in source.state_dict().items()), part


def test_florence2_parts_start_from_local_folders(config: Callable[..., Any], tmp_path: Path) -> None:
    donor = registry.build(config("florence2_tiny", vocabulary=60))
    vision = ViTModel(donor.vision.config, add_pooling_layer=False)
    language = MBartForConditionalGeneration(donor.language.config)
    vision.save_pretrained(tmp_path / "vision")
    language.save_pretrained(tmp_path / "language")
    folders = {part: str(tmp_path / part) for part in ("vision", "language")}
    started = registry.build(config("florence2_tiny", vocabulary=60, initialise_from=folders))
    for part, source in (("vision", vision), ("language", language)):
        own = started.get_submodule(part).state_dict()
        assert all(torch.equal(own[name], value) for name, value in source.state_dict().items()), part


def test_weights_of_another_image_size_are_stretched(config: Callable[..., Any], tmp_path: Path) -> None:
    shape = config("blip2_tiny", vocabulary=60)
    small = {**shape.vision.model_dump(), "image_size": shape.vision.image_size // 2}
    smaller = registry.build(config("blip2_tiny", vocabulary=60, vision=small))
    CLIPVisionModel(smaller.vision.config).save_pretrained(tmp_path)
    registry.build(config("blip2_tiny", vocabulary=60, initialise_from={"vision": str(tmp_path)}))


def test_stretched_positions_keep_the_class_token_and_a_flat_grid() -> None:
    positions = torch.cat([torch.full((1, 4), 9.0), torch.full((16, 4), 2.5)])
    stretched = resize_positions(positions, 36)
    torch.testing.assert_close(stretched, torch.cat([torch.full((1, 4), 9.0), torch.full((36, 4), 2.5)]))


def test_weights_of_another_shape_are_refused_in_one_line(config: Callable[..., Any], tmp_path: Path) -> None:
    shape = config("blip2_tiny", vocabulary=60).language
    narrow = {**shape.model_dump(), "mlp_width": shape.mlp_width // 2}
    other = registry.build(config("blip2_tiny", vocabulary=60, language=narrow))
    OPTForCausalLM(other.language.config).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"model\.initialise_from\.language: .* does not fit this model") as raised:
        registry.build(config("blip2_tiny", vocabulary=60, initialise_from={"language": str(tmp_path)}))
    assert "\n" not in str(raised.value)


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path, config: Callable[..., Any]) -> None:
    with pytest.raises(UserError, match="not a saved model"):
        registry.load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(UserError, match="model_type 'bert' is no architecture of Pairmill's"):
        registry.load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"architecture": {"architecture": "blip9"}}))
    with pytest.raises(UserError, match=r"config.json: architecture 'blip9' is not known \(known: blip2, florence2"):
        registry.load(tmp_path)
    with pytest.raises(UserError, match=r"model\.initialise_from\.vision: nowhere is not a folder"):
        registry.build(config("florence2_tiny", vocabulary=60, initialise_from={"vision": "nowhere"}))
