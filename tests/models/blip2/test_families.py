"""Released weights of each family load into a BLIP2-Adapter, which then computes what `transformers`' class does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    Blip2VisionConfig,
    Blip2VisionModel,
    CLIPConfig,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    PreTrainedModel,
    SiglipConfig,
    SiglipModel,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from models import registry
from models.blip2.language import logits_of
from models.common.batch import Batch
from models.common.errors import UserError

VISION: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 64,
    "patch_size": 16,
}
OURS: dict[str, Any] = {"image_size": 64, "patch_size": 16, "width": 32, "layers": 2, "heads": 4, "mlp_width": 64}
TEXT: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
DECODER: dict[str, Any] = {
    "vocab_size": 60,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
DECODERS: dict[str, dict[str, Any]] = {
    "llama": DECODER,
    "mistral": {**DECODER, "sliding_window": 6},
    "qwen2": DECODER,
    "qwen3": {**DECODER, "head_dim": 16},
    "gemma": {**DECODER, "head_dim": 8, "num_key_value_heads": 1},
    "gemma2": {**DECODER, "head_dim": 8, "final_logit_softcapping": 2.0},
    "granite": {**DECODER, "logits_scaling": 3.0},
    "gpt_neox": DECODER,
    "gpt2": {"vocab_size": 60, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "bos_token_id": 1},
    "mixtral": {**DECODER, "num_local_experts": 4},
}


def randomised(model: Any) -> Any:
    """The model with weights far from their start, so that whatever is confused shows; norms and biases, too."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator) * 0.2)
    return model.eval()


def blip2(config: Callable[..., Any], **changes: Any) -> Any:
    return registry.build(config("blip2_tiny", vocabulary=60, **changes)).eval()


def clip(act: str) -> CLIPVisionModel:
    return CLIPVisionModel(CLIPVisionConfig(**VISION, hidden_act=act))


def clip_with_text(act: str) -> CLIPModel:
    return CLIPModel(CLIPConfig(text_config={**TEXT, "vocab_size": 60}, vision_config={**VISION, "hidden_act": act}))


FOLDERS: dict[str, tuple[Callable[[], PreTrainedModel], dict[str, str]]] = {
    "clip": (lambda: clip("gelu"), {}),
    "clip_of_openai": (lambda: clip("quick_gelu"), {"activation": "quick_gelu"}),
    "clip_with_text": (lambda: clip_with_text("gelu"), {}),
    "siglip": (lambda: SiglipVisionModel(SiglipVisionConfig(**VISION)), {"family": "siglip"}),
    "siglip_with_text": (
        lambda: SiglipModel(SiglipConfig(text_config={**TEXT, "vocab_size": 60}, vision_config=VISION)),
        {"family": "siglip"},
    ),
    "eva": (lambda: Blip2VisionModel(Blip2VisionConfig(**VISION)), {"family": "eva"}),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_vision_transformer_gives_the_tokens_that_transformers_gives(
    name: str, config: Callable[..., Any], tmp_path: Path
) -> None:
    make, family = FOLDERS[name]
    theirs = randomised(make())
    theirs.save_pretrained(tmp_path, max_shard_size="30KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    shape = {"vision": {**OURS, **family}, "initialise_from": {"vision": str(tmp_path)}}
    model = blip2(config, **shape)
    vision: Any = getattr(theirs, "vision_model", theirs)
    pixels = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = vision(pixels).last_hidden_state
        if name.startswith("clip"):
            expected = vision.post_layernorm(expected)  # the published norm, over every token
        torch.testing.assert_close(model.vision.encode(pixels), expected, rtol=0, atol=1e-5)
    assert expected.shape[1] == model_tokens(config, **shape)


def model_tokens(config: Callable[..., Any], **changes: Any) -> int:
    tokens: int = config("blip2_tiny", **changes).vision.tokens
    return tokens


def test_positions_without_a_class_token_are_stretched_whole(config: Callable[..., Any], tmp_path: Path) -> None:
    theirs = SiglipVisionModel(SiglipVisionConfig(**{**VISION, "image_size": 32}))
    with torch.no_grad():
        theirs.embeddings.position_embedding.weight.fill_(2.5)
    theirs.save_pretrained(tmp_path)
    model = blip2(config, vision={**OURS, "family": "siglip"}, initialise_from={"vision": str(tmp_path)})
    torch.testing.assert_close(model.vision.embeddings.position_embedding.weight, torch.full((16, 32), 2.5))


def test_another_family_or_activation_is_refused_with_what_to_set(config: Callable[..., Any], tmp_path: Path) -> None:
    SiglipVisionModel(SiglipVisionConfig(**VISION)).save_pretrained(tmp_path / "siglip")
    clip("quick_gelu").save_pretrained(tmp_path / "clip")
    with pytest.raises(
        UserError, match=r"^model\.initialise_from\.vision: .*siglip.*; set model\.vision\.family=siglip$"
    ):
        blip2(config, vision=OURS, initialise_from={"vision": str(tmp_path / "siglip")})
    with pytest.raises(UserError, match="trained with hidden_act=quick_gelu, this model has gelu"):
        blip2(config, vision=OURS, initialise_from={"vision": str(tmp_path / "clip")})


def test_what_pixels_a_vision_transformer_was_trained_with_is_part_of_the_config(
    config: Callable[..., Any], tmp_path: Path
) -> None:
    described = {"do_normalize": True, "image_mean": [0.5, 0.25, 0.5], "image_std": [0.5, 0.5, 0.125]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(described))
    start = {"initialise_from": {"vision": str(tmp_path)}}
    assert config("blip2_tiny", **start).vision.image_mean == (0.5, 0.25, 0.5)
    assert config("florence2_tiny", **start).vision.image_std == (0.5, 0.5, 0.125)
    own = {**OURS, "image_mean": [0.1, 0.1, 0.1]}
    assert config("blip2_tiny", vision=own, **start).vision.image_mean == (0.1, 0.1, 0.1)
    assert config("blip2_tiny").vision.image_mean is None
    # `transformers` 5 saves a processor's parts in one file, which counts before one that older versions left.
    nested = {"image_processor": {"image_mean": [0.4, 0.4, 0.4], "image_std": [0.2, 0.2, 0.2]}}
    (tmp_path / "processor_config.json").write_text(json.dumps(nested))
    assert config("blip2_tiny", **start).vision.image_mean == (0.4, 0.4, 0.4)
    (tmp_path / "processor_config.json").write_text(json.dumps({"processor_class": "Blip2Processor"}))
    assert config("blip2_tiny", **start).vision.image_mean == (0.5, 0.25, 0.5)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**described, "image_std": [0.5, 0, 0.5]}))
    with pytest.raises(ValueError, match=r"image_std\.1"):
        config("blip2_tiny", **start)


def decoder(family: str, folder: Path, **changes: Any) -> Any:
    """A random decoder of a family, saved in several files."""
    shape = AutoConfig.for_model(family, **{**DECODERS[family], "eos_token_id": 2, "pad_token_id": 0, **changes})
    theirs = randomised(AutoModelForCausalLM.from_config(shape))
    theirs.save_pretrained(folder, max_shard_size="30KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    return theirs


def of_family(config: Callable[..., Any], folder: Path, **changes: Any) -> Any:
    start: dict[str, Any] = {"language": {"family": "transformers"}, "initialise_from": {"language": str(folder)}}
    return config("blip2_tiny", **{"vocabulary": 60, **start, **changes})


@pytest.mark.parametrize("family", DECODERS)
def test_a_decoder_is_transformers_own_but_for_the_adapters_between_its_layers(
    family: str, config: Callable[..., Any], batch: Batch, tmp_path: Path
) -> None:
    theirs = decoder(family, tmp_path)
    shape = of_family(config, tmp_path)
    assert registry.count_parameters(shape)["language"] == sum(w.numel() for w in theirs.parameters())
    assert (shape.language.width, shape.language.layers, shape.language.heads) == (32, 2, 4)
    model: Any = registry.build(shape).eval()
    prompt = torch.tensor([[0, 1, 20, 21], [1, 22, 23, 24]])
    mask = (prompt != 0).long()
    search: dict[str, Any] = {"num_beams": 3, "max_new_tokens": 5, "do_sample": False}
    with torch.no_grad():
        for adapter in model.adapters.values():
            adapter.gate.zero_()
        ids = torch.tensor([[1, 20, 21, 22, 23, 24, 25, 26, 27]])
        with model.adapters.attending(torch.randn(1, 8, 64)):
            blind = logits_of(model.language, model.language.base_model(ids).last_hidden_state)
            generated = model.language.generate(prompt, attention_mask=mask, **search)
        torch.testing.assert_close(blind, theirs(ids).logits, rtol=0, atol=1e-5)
        assert torch.equal(generated, theirs.generate(prompt, attention_mask=mask, **search))
        for adapter in model.adapters.values():
            adapter.gate.fill_(0.5)
        with model.adapters.attending(torch.randn(1, 8, 64)):
            seeing = model.language(ids).logits
    assert not torch.allclose(seeing, blind, atol=1e-3)
    loss = registry.objective(model, "language_modeling")(batch)["loss"]
    loss.backward()
    assert all(adapter.key.weight.grad.abs().sum() > 0 for adapter in model.adapters.values())
    targets, counted = batch["target_ids"], batch["target_mask"].bool()
    with torch.no_grad():
        texts = (batch["image_index"], batch["prompt_ids"], batch["prompt_mask"], targets, batch["target_mask"])
        logits = model(batch["pixels"], *texts)
    expected = nn.functional.cross_entropy(logits[counted], targets[counted])
    torch.testing.assert_close(loss.detach(), expected, rtol=1e-5, atol=1e-5)


def test_a_saved_model_has_its_decoders_shape_inside(config: Callable[..., Any], batch: Batch, tmp_path: Path) -> None:
    decoder("qwen3", tmp_path / "qwen3")
    model: Any = registry.build(of_family(config, tmp_path / "qwen3")).eval()
    model.save_pretrained(tmp_path / "saved")
    for file in (tmp_path / "qwen3").iterdir():
        file.unlink()
    loaded: Any = registry.load(tmp_path / "saved")
    assert str(tmp_path) not in (tmp_path / "saved" / "config.json").read_text(encoding="utf-8")
    assert type(loaded.language).__name__ == "Qwen3ForCausalLM"
    texts = [batch[k] for k in ("image_index", "prompt_ids", "prompt_mask", "target_ids", "target_mask")]  # type: ignore[literal-required]
    torch.testing.assert_close(loaded(batch["pixels"], *texts), model(batch["pixels"], *texts), rtol=0, atol=0)


def test_beams_see_the_image_of_their_own_text(config: Callable[..., Any], batch: Batch, tmp_path: Path) -> None:
    decoder("llama", tmp_path)
    model: Any = registry.build(of_family(config, tmp_path, adapters={"every": 1, "gate": 1.5})).eval()
    arguments = [batch[k] for k in ("pixels", "image_index", "prompt_ids", "prompt_mask")]  # type: ignore[literal-required]
    together = registry.generate(model, *arguments, num_beams=3, max_new_tokens=5, min_new_tokens=5)
    for row in range(len(together)):
        one = slice(row, row + 1)
        alone = registry.generate(
            model,
            batch["pixels"],
            *(value[one] for value in arguments[1:]),
            num_beams=3,
            max_new_tokens=5,
            min_new_tokens=5,
        )
        assert alone[0].tolist() == together[row].tolist()


def test_more_ids_than_the_weights_have_start_at_random(config: Callable[..., Any], tmp_path: Path) -> None:
    theirs = decoder("llama", tmp_path, tie_word_embeddings=False)
    model: Any = registry.build(of_family(config, tmp_path, vocabulary=70))
    for own, given in (
        (model.language.get_input_embeddings(), theirs.model.embed_tokens),
        (model.language.lm_head, theirs.lm_head),
    ):
        assert torch.equal(own.weight[:60], given.weight)
        assert own.weight[60:].std() > 0


def test_folders_that_do_not_fit_are_refused_in_one_line(config: Callable[..., Any], tmp_path: Path) -> None:
    decoder("llama", tmp_path / "llama")
    shape = of_family(config, tmp_path / "llama").language.shape

    def refused(match: str, folder: str = "llama", **changes: Any) -> None:
        start: dict[str, Any] = {"language": str(tmp_path / folder)}
        language = {"family": "transformers", "shape": {**shape, **changes}}
        with pytest.raises(UserError, match=rf"^model\.initialise_from\.language: \S*{folder} {match}") as raised:
            registry.build(of_family(config, tmp_path, language=language, initialise_from=start))
        assert "\n" not in str(raised.value)

    refused(r"was trained with rms_norm_eps=1e-06, this model has 0\.1", rms_norm_eps=0.1)
    refused(r"was trained with num_hidden_layers=2, this model has 3", num_hidden_layers=3)
    refused(r"holds a model of type 'llama'; this model's language model is 'mistral'", model_type="mistral")
    described = json.loads((tmp_path / "llama" / "config.json").read_text())
    (tmp_path / "llama" / "config.json").write_text(json.dumps({**described, "intermediate_size": 48}))
    refused(
        r"does not fit this model: model\.layers\.0\.mlp\.gate_proj\.weight is \[64, 32\] there and \[48, 32\] here",
        intermediate_size=48,
    )
    (tmp_path / "llama" / "config.json").write_text(json.dumps({**described, "attention_bias": True}))
    refused(r"lacks 8 of this model's weights, first model\.layers\.0\.self_attn\.q_proj\.bias", attention_bias=True)


def test_a_folder_may_differ_in_what_only_random_weights_need_and_in_roundings(
    config: Callable[..., Any], tmp_path: Path
) -> None:
    decoder("llama", tmp_path, rms_norm_eps=1e-5, initializer_range=0.04)
    shape = {**DECODER, "model_type": "llama", "rms_norm_eps": 9.999999747378752e-06, "initializer_range": 0.02}
    start = {"language": str(tmp_path)}
    registry.build(
        of_family(config, tmp_path, language={"family": "transformers", "shape": shape}, initialise_from=start)
    )


def test_deeper_weights_are_not_cut_off(config: Callable[..., Any], tmp_path: Path) -> None:
    clip("gelu").save_pretrained(tmp_path)
    shallow = {**OURS, "layers": 1}
    with pytest.raises(UserError, match="was trained with num_hidden_layers=2, this model has 1"):
        blip2(config, vision=shallow, initialise_from={"vision": str(tmp_path)})


def test_a_shape_that_is_no_decoders_is_refused(config: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"set model\.initialise_from\.language to a folder with a config\.json"):
        config("blip2_tiny", language={"family": "transformers"})
    shape = {**DECODER, "model_type": "llama", "quantization_config": {"bits": 4}}
    with pytest.raises(ValueError, match="shape is that of quantised weights"):
        config("blip2_tiny", language={"family": "transformers", "shape": shape})
    with pytest.raises(ValueError, match="shape is that of a gemma3, which is more than a decoder of text"):
        config(
            "blip2_tiny", language={"family": "transformers", "shape": {"model_type": "gemma3", "text_config": DECODER}}
        )
    headless = {"model_type": "mamba", "hidden_size": 32, "num_hidden_layers": 2}
    with pytest.raises(ValueError, match="shape, that of a mamba, states no num_attention_heads"):
        config("blip2_tiny", language={"family": "transformers", "shape": headless})
    own_head = {**DECODER, "model_type": "bert", "is_decoder": True}
    with pytest.raises(
        UserError, match=r"^model\.language\.shape: the decoder BertLMHeadModel is more than layers and"
    ):
        blip2(config, language={"family": "transformers", "shape": own_head})
    narrow = {**DECODER, "model_type": "opt", "ffn_dim": 64, "word_embed_proj_dim": 16}
    with pytest.raises(UserError, match=r"OPTForCausalLM has embeddings of another width"):
        blip2(config, language={"family": "transformers", "shape": narrow})
    for model_type in ("t5", "no_such_model"):
        shape = {**DECODER, "model_type": model_type}
        with pytest.raises(UserError, match=rf"^model\.language\.shape: .*'?{model_type}"):
            blip2(config, language={"family": "transformers", "shape": shape})
