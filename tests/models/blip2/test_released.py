"""BLIP-2 as published: a folder of `transformers`' class loads with equal outputs, and a model exports back to one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2ForImageTextRetrieval,
    LlamaConfig,
    MistralConfig,
    OPTConfig,
    PreTrainedConfig,
)

from models import registry
from models.common.batch import Batch
from models.common.errors import UserError
from models.stock import save_stock

#: The id that stands for an image's tokens in the prompts of `transformers`.
IMAGE = 59
QUERIES = 4
VISION = {"image_size": 64, "patch_size": 16}
EVA: dict[str, Any] = {**VISION, "family": "eva", "width": 32, "layers": 2, "heads": 4, "mlp_width": 64}
SIZES = {"width": 24, "layers": 2, "heads": 4, "mlp_width": 48}
QFORMER: dict[str, Any] = {**SIZES, "queries": QUERIES, "text_positions": 32}
OPT: dict[str, Any] = {"width": 40, "layers": 2, "heads": 4, "mlp_width": 80, "positions": 64}
IDS: dict[str, Any] = {"vocab_size": 60, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def opt() -> OPTConfig:
    sizes: dict[str, Any] = {"hidden_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 80}
    return OPTConfig(**sizes, max_position_embeddings=64, dropout=0.0, word_embed_proj_dim=40, **IDS)


def described(text: PreTrainedConfig, *, of_text: bool = False) -> Blip2Config:
    """The config of a BLIP-2 of the sizes above."""
    vision = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": 64,
        "patch_size": 16,
    }
    qformer = {
        "vocab_size": 60,
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "max_position_embeddings": 32,
        "use_qformer_text_input": of_text,
    }
    return Blip2Config(
        vision_config=vision,
        qformer_config=qformer,
        text_config=text.to_dict(),
        num_query_tokens=QUERIES,
        image_token_index=IMAGE,
        image_text_hidden_size=16,
    )


def randomised(model: Any) -> Any:
    """The model with weights far from their start, so that whatever is confused shows."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator) * 0.1)
    return model.eval()


@pytest.fixture(params=["opt", "llama", "mistral"])
def released(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Any, Path]:
    """A random BLIP-2 of `transformers`, and the folder it is saved in, in several files."""
    sizes: dict[str, Any] = {"hidden_size": 40, "intermediate_size": 80}
    sizes |= {"num_hidden_layers": 2, "num_attention_heads": 4}
    texts = {
        "opt": opt(),
        "llama": LlamaConfig(**sizes, max_position_embeddings=64, **IDS),
        # A window shorter than queries and text, which counts padding where there is some in between.
        "mistral": MistralConfig(**sizes, max_position_embeddings=64, num_key_value_heads=2, sliding_window=5, **IDS),
    }
    text = texts[request.param]
    theirs = randomised(Blip2ForConditionalGeneration(described(text)))
    theirs.save_pretrained(tmp_path / "released", max_shard_size="40KB")
    assert (tmp_path / "released" / "model.safetensors.index.json").exists()
    return theirs, tmp_path / "released"


def started(config: Callable[..., Any], folder: Path, family: str) -> Any:
    """A model of ours with `bridge=prefix` that starts from the folder in all its parts."""
    parts = ("vision", "qformer", "language", "projection")
    shape = config(
        "blip2_tiny",
        vocabulary=60,
        bridge="prefix",
        vision=EVA,
        qformer=QFORMER,
        language=OPT if family == "opt" else {"family": "transformers"},
        initialise_from=dict.fromkeys(parts, str(folder)),
    )
    return registry.build(shape).eval()


def family_of(theirs: Any) -> str:
    return str(theirs.config.text_config.model_type)


#: Two prompts of equal length, without padding.
PROMPTS = torch.tensor([[20, 21], [22, 23]])
TARGETS = torch.tensor([[7, 8, 2], [10, 11, 2]])
INDEX = torch.arange(2)


def theirs_prompt() -> torch.Tensor:
    return torch.cat([torch.full((2, QUERIES), IMAGE), torch.full((2, 1), 1), PROMPTS], dim=1)


def test_a_released_blip2_gives_the_same_logits_and_beams(
    released: tuple[Any, Path], config: Callable[..., Any]
) -> None:
    theirs, folder = released
    model = started(config, folder, family_of(theirs))
    pixels = torch.randn(2, 3, 64, 64)
    ones = torch.ones_like(PROMPTS)
    with torch.no_grad():
        ids = torch.cat([theirs_prompt(), TARGETS[:, :-1]], dim=1)
        expected = theirs(pixel_values=pixels, input_ids=ids).logits[:, -TARGETS.shape[1] :]
        logits = model(pixels, INDEX, PROMPTS, ones, TARGETS, torch.ones_like(TARGETS))
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)
    search: dict[str, Any] = {"num_beams": 3, "max_new_tokens": 6, "min_new_tokens": 3}
    beams = registry.generate(model, pixels, INDEX, PROMPTS, ones, **search)
    prompt = theirs_prompt()
    theirs_beams = theirs.generate(
        pixel_values=pixels, input_ids=prompt, attention_mask=torch.ones_like(prompt), do_sample=False, **search
    )
    assert beams.tolist() == theirs_beams[:, prompt.shape[1] :].tolist()


def test_prompts_of_other_lengths_beside_it_change_no_answer(
    released: tuple[Any, Path], config: Callable[..., Any], batch: Batch
) -> None:
    theirs, folder = released
    model = started(config, folder, family_of(theirs))
    arguments = [batch[k] for k in ("image_index", "prompt_ids", "prompt_mask")]  # type: ignore[literal-required]
    together = registry.generate(model, batch["pixels"], *arguments, num_beams=3, max_new_tokens=5, min_new_tokens=5)
    for row, length in enumerate(batch["prompt_mask"].sum(dim=1).tolist()):
        index, ids, mask = (value[row : row + 1] for value in arguments)
        alone = registry.generate(
            model,
            batch["pixels"],
            index,
            ids[:, -length:],
            mask[:, -length:],
            num_beams=3,
            max_new_tokens=5,
            min_new_tokens=5,
        )
        assert alone[0].tolist() == together[row].tolist()


def export(model: Any, folder: Path, image_token: int) -> None:
    """Saves a model below a folder, and as one of a class of `transformers` in its `exported`."""
    model.save_pretrained(folder / "saved")
    (folder / "exported").mkdir()
    save_stock(folder / "saved", folder / "exported", image_token)


@pytest.mark.parametrize("released", ["opt"], indirect=True)
def test_an_exported_model_opens_in_a_process_without_pairmill(
    released: tuple[Any, Path], config: Callable[..., Any], tmp_path: Path
) -> None:
    theirs, folder = released
    model = randomised(started(config, folder, family_of(theirs)))  # as if trained
    export(model, tmp_path, IMAGE)
    pixels = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        logits = model(pixels, INDEX, PROMPTS, torch.ones_like(PROMPTS), TARGETS, torch.ones_like(TARGETS))
    torch.save((pixels, torch.cat([theirs_prompt(), TARGETS[:, :-1]], dim=1)), tmp_path / "inputs.pt")
    code = (
        "import sys, torch\n"
        "from transformers import Blip2ForConditionalGeneration\n"
        "model, info = Blip2ForConditionalGeneration.from_pretrained(sys.argv[1], output_loading_info=True)\n"
        "assert not info['missing_keys'] and not info['unexpected_keys'], info\n"
        "pixels, ids = torch.load(sys.argv[2])\n"
        "with torch.no_grad():\n"
        "    torch.save(model.eval()(pixel_values=pixels, input_ids=ids).logits, sys.argv[3])\n"
        "assert not any(name.split('.')[0] in ('models', 'stages', 'pipelines') for name in sys.modules)\n"
    )
    files = [str(tmp_path / name) for name in ("exported", "inputs.pt", "logits.pt")]
    subprocess.run([sys.executable, "-I", "-c", code, *files], check=True, cwd=tmp_path)
    opened = torch.load(tmp_path / "logits.pt")[:, -TARGETS.shape[1] :]
    torch.testing.assert_close(opened, logits, rtol=0, atol=1e-5)


def test_a_model_without_a_class_in_transformers_is_not_exported(config: Callable[..., Any], tmp_path: Path) -> None:
    adapters: Any = registry.build(config("blip2_tiny", vocabulary=60))
    with pytest.raises(UserError, match=r"bridge=adapters and vision\.family=clip: transformers has a class for"):
        export(adapters, tmp_path / "adapters", IMAGE)
    prefix: Any = registry.build(config("blip2_tiny", vocabulary=60, bridge="prefix", vision=EVA))
    with pytest.raises(UserError, match=r"uses all of its 60 ids, .*model\.vocabulary of at least 61"):
        export(prefix, tmp_path / "prefix", 60)


def test_the_projection_is_a_part_that_text_trains(config: Callable[..., Any], batch: Batch) -> None:
    shape = config("blip2_tiny", vocabulary=60, bridge="prefix")
    assert registry.objective_parts(shape, "language_modeling") == ("vision", "qformer", "projection", "language")
    model: Any = registry.build(shape).train()
    counted = {part: sum(p.numel() for p in module.parameters()) for part, module in model.named_parts().items()}
    assert registry.count_parameters(shape) == counted
    registry.set_trainable(model, ["projection"])
    registry.objective(model, "language_modeling")(batch)["loss"].backward()
    assert model.projection.weight.grad.abs().sum() > 0
    assert model.language.lm_head.weight.grad is None


def test_a_q_former_for_retrieval_brings_its_text_embeddings_where_they_are_asked_for(
    config: Callable[..., Any], tmp_path: Path
) -> None:
    theirs = randomised(Blip2ForImageTextRetrieval(described(opt(), of_text=True)))
    theirs.save_pretrained(tmp_path, max_shard_size="20KB")
    start: dict[str, Any] = {"vision": str(tmp_path), "qformer": str(tmp_path)}
    shape: dict[str, Any] = {"vocabulary": 70, "vision": EVA, "qformer": QFORMER, "heads": {"projection": 16}}
    plain: Any = registry.build(config("blip2_tiny", **shape, initialise_from=start)).eval()
    assert not torch.equal(plain.qformer.text.words.weight[:60], theirs.embeddings.word_embeddings.weight)
    model: Any = registry.build(
        config("blip2_tiny", **shape, initialise_from={**start, "qformer_embeddings": True})
    ).eval()
    ids, mask = torch.tensor([[1, 20, 21]]), torch.ones(1, 3, dtype=torch.long)
    pixels = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        image = model.vision.encode(pixels)
        states = model.qformer.encode_pair(image, ids, mask)
        matching = theirs.itm_head(states).mean(dim=1)
        expected = theirs(
            pixel_values=pixels,
            input_ids=torch.cat([torch.full((1, QUERIES), IMAGE), ids], dim=1),
            attention_mask=torch.ones(1, QUERIES + 3, dtype=torch.long),
            use_image_text_matching_head=True,
        ).logits_per_image
    torch.testing.assert_close(matching, expected, rtol=0, atol=1e-5)
    assert model.qformer.text.words.weight[60:].std() > 0


def test_a_q_former_without_texts_leaves_their_layers_at_random(
    released: tuple[Any, Path], config: Callable[..., Any]
) -> None:
    theirs, folder = released
    start: dict[str, Any] = {"initialise_from": {"qformer": str(folder)}}
    model: Any = registry.build(config("blip2_tiny", vocabulary=60, vision=EVA, qformer=QFORMER, **start))
    assert torch.equal(model.qformer.queries.tokens, theirs.query_tokens)
    layer = model.qformer.body.encoder.layer[0]
    assert torch.equal(
        layer.intermediate_query.dense.weight, theirs.qformer.encoder.layer[0].intermediate_query.dense.weight
    )
    assert layer.intermediate.dense.weight.std() > 0
    start["initialise_from"]["qformer_embeddings"] = True
    with pytest.raises(UserError, match=r"^model\.initialise_from\.qformer_embeddings: .* lacks 2 of this model's"):
        registry.build(config("blip2_tiny", vocabulary=60, vision=EVA, qformer=QFORMER, **start))


def test_pickled_weights_are_refused_with_the_command_that_converts_them(
    config: Callable[..., Any], tmp_path: Path
) -> None:
    described = {"model_type": "opt", "architectures": ["OPTForCausalLM"], "num_attention_heads": 4}
    described["num_hidden_layers"] = 2  # where a config states none it has 12
    (tmp_path / "config.json").write_text(json.dumps(described))
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(UserError, match=r"holds pytorch_model\.bin, a pickle.*import OPTForCausalLM as M") as raised:
        registry.build(config("blip2_tiny", vocabulary=60, initialise_from={"language": str(tmp_path)}))
    assert "\n" not in str(raised.value)
