"""What the driver checks before it hands a job to workers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from models import registry
from models.common.config import ModelConfig
from stages.base.contract import UserError
from stages.train.config import CLIP_MEAN, OptimizationConfig, PhaseConfig
from stages.train.job import (
    check_checkpointing,
    check_frozen,
    check_frozen_shards,
    check_lengths,
    check_tensor_parallel,
    check_vocabulary,
    with_absolute_folders,
    with_pixel_statistics,
)

CONF = Path(__file__).parents[3] / "conf"


def model_of(name: str, **changes: Any) -> ModelConfig:
    fields = yaml.safe_load((CONF / "model" / f"{name}.yaml").read_text(encoding="utf-8"))
    return registry.model_config({**fields, **changes})


def test_describing_a_job_loads_no_heavy_package() -> None:
    code = (
        "import sys, stages.train.job; "
        "print(sorted({'numpy', 'torch', 'ray', 'pyarrow', 'PIL', 'transformers'} & sys.modules.keys()))"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=CONF.parent, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_a_tokenizer_larger_than_the_model_is_refused_with_both_keys() -> None:
    check_vocabulary(100, 100)
    check_vocabulary(128, 100)
    with pytest.raises(UserError, match=r"tokenizer.vocabulary=101 .* model.vocabulary=100"):
        check_vocabulary(100, 101)


def test_checkpointing_a_part_that_has_no_layers_or_does_not_exist_is_refused_with_its_key() -> None:
    model = model_of("blip2_tiny")
    settings = {
        part: OptimizationConfig(activation_checkpointing={"language": 1, part: 2})
        for part in ("vision", "adapters", "reconstruction")
    }
    check_checkpointing("train", settings["vision"], model)
    with pytest.raises(UserError, match=r"^train\.activation_checkpointing: adapters has no transformer layers; give "):
        check_checkpointing("train", settings["adapters"], model)
    with pytest.raises(UserError, match=r"^tasks\.vqa\.activation_checkpointing: reconstruction is no part"):
        check_checkpointing("tasks.vqa", settings["reconstruction"], model)


def test_texts_that_the_model_has_no_positions_for_are_refused() -> None:
    writing = [PhaseConfig(objective="language_modeling", steps=1)]
    check_lengths("train", writing, model_of("blip2_tiny"), 128)
    check_lengths("tasks.vqa", writing, model_of("blip2_tiny"), 28, prompt=100)
    with pytest.raises(
        UserError,
        match=r"^tasks\.vqa\.max_text_tokens lets targets have 29 .*28 in language_modeling beside prompts of up",
    ):
        check_lengths("tasks.vqa", writing, model_of("blip2_tiny"), 29, prompt=100)
    with pytest.raises(UserError, match="has positions for 120 in language_modeling"):
        check_lengths("train", writing, model_of("blip2_tiny", bridge="prefix"), 121)
    contrasting = [PhaseConfig(objective="representation", steps=1)]
    check_lengths("train", contrasting, model_of("blip2_tiny"), 63)
    with pytest.raises(UserError, match="has positions for 63 in representation"):
        check_lengths("train", contrasting, model_of("blip2_tiny"), 64)
    florence = [PhaseConfig(objective=name, steps=1) for name in ("masked_autoencoding", "sequence_to_sequence")]
    check_lengths("train", florence[:1], model_of("florence2_tiny"), 1000)
    check_lengths("train", florence, model_of("florence2_tiny"), 128, prompt=112)
    with pytest.raises(UserError, match="has positions for 0 in sequence_to_sequence"):
        check_lengths("train", florence, model_of("florence2_tiny"), 8, prompt=113)


def test_ranks_share_whole_heads_of_decoders_that_are_split() -> None:
    check_tensor_parallel(model_of("blip2_tiny"), 4)
    check_tensor_parallel(model_of("florence2_tiny"), 2)
    with pytest.raises(UserError, match=r"^cluster\.tensor_parallel=3 does not divide model\.vision\.heads=4"):
        check_tensor_parallel(model_of("florence2_tiny"), 3)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "max_position_embeddings": 64}
    shape = {**sizes, "model_type": "llama", "num_attention_heads": 4, "num_key_value_heads": 2}
    language = {"family": "transformers", "shape": shape, "width": 8, "layers": 1, "heads": 1, "mlp_width": 8}
    check_tensor_parallel(model_of("blip2_tiny", language=language), 2)
    with pytest.raises(UserError, match=r"=4 does not divide model\.language\.shape\.num_key_value_heads=2"):
        check_tensor_parallel(model_of("blip2_tiny", language=language), 4)
    fused = {**language, "shape": {**shape, "model_type": "phi3"}}
    check_tensor_parallel(model_of("blip2_tiny", language=fused), 1)
    with pytest.raises(UserError, match=r"splits no decoder of family 'phi3'.*llama, .*train\.zero\.stage=3"):
        check_tensor_parallel(model_of("blip2_tiny", language=fused), 2)


def test_copies_of_frozen_weights_lie_on_equally_many_ranks() -> None:
    settings = OptimizationConfig(zero={"stage": 3, "frozen_shards": 8})
    check_frozen_shards("train", settings, 16)
    for ranks in (12, 4):
        with pytest.raises(UserError, match=r"^train\.zero\.frozen_shards=8 does not divide"):
            check_frozen_shards("train", settings, ranks)


STAGES = [
    PhaseConfig(objective="representation", steps=1, trainable=["qformer", "qformer_text", "heads"]),
    PhaseConfig(objective="language_modeling", steps=1, trainable=["qformer", "adapters"]),
]


def test_a_frozen_part_without_weights_is_refused_with_what_to_give() -> None:
    settings = OptimizationConfig()
    with pytest.raises(
        UserError, match=r"train\.phases\[0\]: .*'vision'.* set model\.initialise_from\.vision to a fold"
    ):
        check_frozen("train", settings, STAGES, model_of("blip2_tiny"))
    vision = model_of("blip2_tiny", initialise_from={"vision": "somewhere"})
    with pytest.raises(UserError, match=r"train\.phases\[1\]: .*'language'.*random_frozen=true"):
        check_frozen("train", settings, STAGES, vision)
    both = model_of("blip2_tiny", initialise_from={"vision": "somewhere", "language": "elsewhere"})
    check_frozen("train", settings, STAGES, both)
    check_frozen("train", OptimizationConfig(random_frozen=True), STAGES, model_of("blip2_tiny"))


def test_a_part_that_an_earlier_phase_trained_may_be_frozen() -> None:
    trained = [PhaseConfig(objective="representation", steps=1), STAGES[1]]
    language = model_of("blip2_tiny", initialise_from={"language": "somewhere"})
    check_frozen("train", OptimizationConfig(), trained, language)


def test_random_embeddings_of_a_frozen_language_model_are_no_weights() -> None:
    folders = {"vision": "somewhere", "language": "elsewhere", "embeddings": False}
    blind = model_of("blip2_tiny", initialise_from=folders)
    with pytest.raises(UserError, match=r"phases\[1\]: .*'language'.* embeddings are random .*tokenizer\.folder"):
        check_frozen("train", OptimizationConfig(), STAGES, blind)
    learning = [STAGES[0], PhaseConfig(objective="language_modeling", steps=1), STAGES[1]]
    check_frozen("train", OptimizationConfig(), learning, blind)


def test_a_part_that_a_phase_names_but_does_not_use_has_not_learnt() -> None:
    first = PhaseConfig(objective="representation", steps=1, trainable=["vision", "qformer", "adapters"])
    with pytest.raises(UserError, match=r"phases\[0\]\.trainable: representation uses no part 'adapters'"):
        check_frozen("train", OptimizationConfig(), [first], model_of("blip2_tiny"))


def test_the_published_recipe_asks_for_weights() -> None:
    fields = yaml.safe_load((CONF / "recipe" / "blip2_xl.yaml").read_text(encoding="utf-8"))
    phases = [PhaseConfig.model_validate(phase) for phase in fields["phases"]]
    with pytest.raises(UserError, match=r"initialise_from\.vision"):
        check_frozen("train", OptimizationConfig(), phases, model_of("blip2_xl"))


def test_pixels_are_normalised_as_the_model_states_or_else_as_the_recipe() -> None:
    own = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.5, 0.5]}
    model = model_of("blip2_tiny")
    stating = model.model_copy(update={"vision": model.vision.model_validate({**model.vision.model_dump(), **own})})
    for one, settings, mean in (
        (model, OptimizationConfig(), CLIP_MEAN),
        (model, OptimizationConfig(image_mean=(0.5, 0.5, 0.5)), (0.5, 0.5, 0.5)),
        (stating, OptimizationConfig(), (0.1, 0.2, 0.3)),
        (stating, OptimizationConfig(image_mean=(0.1, 0.2, 0.3)), (0.1, 0.2, 0.3)),
    ):
        used, described = with_pixel_statistics("train", settings, one)
        assert used.pixel_statistics[0] == described.vision.image_mean == mean
    with pytest.raises(UserError, match=r"^tasks\.vqa\.image_mean=\[0\.5, 0\.5, 0\.5\], but blip2_tiny takes .*remove"):
        with_pixel_statistics("tasks.vqa", OptimizationConfig(image_mean=(0.5, 0.5, 0.5)), stating)


def test_workers_get_absolute_folders_of_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model: Any = model_of("blip2_tiny", initialise_from={"vision": "clip", "qformer": "/models/q"})
    start = with_absolute_folders(model).initialise_from.model_dump()
    assert start == {**model.initialise_from.model_dump(), "vision": str(tmp_path / "clip")}
