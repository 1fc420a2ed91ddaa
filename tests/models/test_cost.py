"""Costs recorded without torch: FLOPs equal those that torch counts, weights those of the model, memory the papers'."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers.modeling_layers import GradientCheckpointingLayer

from models import registry
from models.common.batch import Batch
from models.common.checkpointing import checkpoint_activations
from models.common.config import ModelConfig
from models.common.cost import MicroBatch, NoCost
from models.common.cost_blocks import pre_norm_layer
from models.common.cost_tape import Tape
from tests.models.conftest import read

ALL_STAGE_1 = ("vision", "qformer", "qformer_text", "heads")
ALL_STAGE_2 = ("vision", "qformer", "adapters", "language")
SEQUENCE = ("vision", "projector", "language")
SHAPE = MicroBatch(images=2, texts=5, prompt=5, target=8)

MID_SIZE: dict[str, dict[str, Any]] = {
    "blip2_tiny": {
        "vision": {"image_size": 112, "patch_size": 14, "width": 128, "layers": 4, "heads": 4, "mlp_width": 512},
        "qformer": {"queries": 16, "width": 96, "layers": 4, "heads": 4, "mlp_width": 384, "cross_attention_every": 2},
        "language": {"width": 160, "layers": 5, "heads": 4, "mlp_width": 640, "positions": 64},
        "adapters": {"every": 2},
    },
    "florence2_tiny": {
        "vision": {"image_size": 112, "patch_size": 8, "width": 128, "layers": 4, "heads": 4, "mlp_width": 512},
        "reconstruction": {"width": 96, "layers": 3, "heads": 4, "mlp_width": 384},
        "language": {
            "width": 160,
            "encoder_layers": 3,
            "decoder_layers": 4,
            "heads": 4,
            "mlp_width": 640,
            "positions": 256,
        },
    },
}

LLAMA = {
    "model_type": "llama",
    "hidden_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "intermediate_size": 256,
    "max_position_embeddings": 128,
    "tie_word_embeddings": False,
}


def counted(
    config: ModelConfig, objective: str, trainable: Sequence[str], checkpointing: Mapping[str, int], shape: MicroBatch
) -> int:
    """FLOPs of one forward and backward pass, as torch counts them."""
    model = registry.build(config)
    registry.set_trainable(model, list(trainable))
    checkpoint_activations(model, checkpointing)
    loss = registry.objective(model, objective).train()
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, config.vocabulary, (shape.texts, shape.target), generator=generator)
    index = torch.arange(shape.texts) % shape.images
    batch = Batch(
        pixels=torch.randn(shape.images, 3, config.vision.image_size, config.vision.image_size, generator=generator),
        image_index=index,
        image_id=index,
        prompt_ids=torch.randint(3, config.vocabulary, (shape.texts, shape.prompt), generator=generator),
        prompt_mask=torch.ones(shape.texts, shape.prompt, dtype=torch.long),
        target_ids=ids,
        target_mask=torch.ones_like(ids),
    )
    # The plain products of attention: torch counts a fused backward with what it recomputes, which MFU leaves out.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        loss(batch)["loss"].backward()
    return int(counter.get_total_flops())


@pytest.mark.parametrize(
    ("name", "objective"), [("blip2_tiny", "language_modeling"), ("florence2_tiny", "sequence_to_sequence")]
)
def test_layers_have_the_weights_of_the_models_own(name: str, objective: str) -> None:
    config = read(name, **MID_SIZE[name])
    tape = registry.record_cost(config, objective, Tape(trainable=()), SHAPE, {})
    model = registry.objective(registry.build(config), objective)
    own = [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)]
    assert max(tape.layers.values()) == max(sum(weight.numel() for weight in layer.parameters()) for layer in own)


@pytest.mark.parametrize("size", ["tiny", "mid-size"])
@pytest.mark.parametrize(
    ("name", "objective", "trainable", "checkpointing"),
    [
        ("blip2_tiny", "representation", ALL_STAGE_1, {}),
        ("blip2_tiny", "representation", ALL_STAGE_1[1:], {"vision": 1, "qformer": 1}),
        ("blip2_tiny", "language_modeling", ALL_STAGE_2, {"vision": 1, "qformer": 2, "language": 1}),
        ("blip2_tiny", "language_modeling", ("qformer", "adapters"), {"language": 1}),
        ("blip2_tiny", "language_modeling", ("adapters",), {}),
        ("florence2_tiny", "masked_autoencoding", ("vision", "reconstruction"), {"vision": 2, "reconstruction": 1}),
        ("florence2_tiny", "sequence_to_sequence", SEQUENCE, {}),
        ("florence2_tiny", "sequence_to_sequence", SEQUENCE, {"vision": 1, "language": 3}),
        ("florence2_tiny", "sequence_to_sequence", ("projector",), {}),
    ],
)
def test_flops_are_those_that_torch_counts(
    name: str, objective: str, trainable: Sequence[str], checkpointing: dict[str, int], size: str
) -> None:
    config = read(name, vocabulary=512, **(MID_SIZE[name] if size == "mid-size" else {}))
    by_part = registry.flops_per_sample(config, objective, trainable, SHAPE, checkpointing=checkpointing)
    predicted = SHAPE.images * sum(flops.hardware for flops in by_part.values())
    assert predicted == pytest.approx(counted(config, objective, trainable, checkpointing, SHAPE), rel=0.01)


@pytest.mark.parametrize(
    "changes",
    [
        {"bridge": "prefix"},
        {"language": {"family": "transformers", "shape": LLAMA}},
        {
            "bridge": "prefix",
            "language": {"family": "transformers", "shape": {**LLAMA, "model_type": "qwen3", "head_dim": 24}},
        },
    ],
)
def test_flops_and_weights_hold_for_other_bridges_and_decoders(changes: dict[str, Any]) -> None:
    config = read("blip2_tiny", vocabulary=512, **changes)
    trainable = ("qformer", config.bridge_part)  # type: ignore[attr-defined]
    checkpointing = {"language": 1}
    by_part = registry.flops_per_sample(config, "language_modeling", trainable, SHAPE, checkpointing=checkpointing)
    predicted = SHAPE.images * sum(flops.hardware for flops in by_part.values())
    assert predicted == pytest.approx(counted(config, "language_modeling", trainable, checkpointing, SHAPE), rel=0.01)
    assert_weights_are_the_models(config, "language_modeling")


@pytest.mark.parametrize("family", ["clip", "siglip", "eva"])
def test_weights_of_each_vision_family_are_those_of_the_model(family: str) -> None:
    fields = read("blip2_tiny").model_dump()
    assert_weights_are_the_models(read("blip2_tiny", vision={**fields["vision"], "family": family}), "representation")


@pytest.mark.parametrize("name", ["blip2_tiny", "blip2_xl", "florence2_tiny", "florence2_xl"])
def test_weights_are_those_of_the_model(name: str) -> None:
    config = read(name)
    for objective in registry.spec(config.architecture).objectives:
        assert_weights_are_the_models(config, objective)


def assert_weights_are_the_models(config: ModelConfig, objective: str) -> None:
    tape = registry.record_cost(config, objective, Tape(trainable=()), SHAPE)
    parts = registry.objective_parts(config, objective)
    recorded = {part: sum(weights.values()) for part, weights in tape.weights.items()}
    known = registry.count_parameters(config)
    left_out = {"qformer_text"} if objective != "representation" else set()
    assert recorded == {part: known[part] for part in parts if part not in left_out}


def test_a_frozen_part_costs_its_forward_pass_and_what_the_gradient_passes_through() -> None:
    config = read("blip2_tiny")
    by_part = registry.flops_per_sample(config, "language_modeling", ("qformer", "adapters"), SHAPE)
    assert by_part["vision"].backward == 0
    assert by_part["language"].weight_gradient == 0
    assert by_part["language"].input_gradient > 0.5 * by_part["language"].forward


def test_activations_of_a_layer_are_those_of_korthikanti() -> None:
    """Korthikanti et al. 2022, section 4.1: 34 s b h bytes, of which dropout, which we have not, is 2, and with fused
    attention (equation 1's second term gone) q, k, v, the output and the statistics stay."""
    tape = Tape(trainable=("language",), size=2)
    tokens, width = 640, 96
    with tape.part("language"):
        x = tape.tensor(tokens, width, grad=True)
        pre_norm_layer(tape, x, 10, 4, 4 * width)
    statistics = tokens * (2 * 8 + 4 * 4)
    assert tape.kept == (34 - 2) * tokens * width + statistics


def test_tensor_parallel_ranks_share_flops_and_activations_of_the_split_matrices() -> None:
    config = read("florence2_tiny")
    whole = registry.record_cost(config, "sequence_to_sequence", Tape(trainable=SEQUENCE), SHAPE)
    half = registry.record_cost(config, "sequence_to_sequence", Tape(trainable=SEQUENCE, tensor_parallel=2), SHAPE)
    language, of_half = whole.flops["language"], half.flops["language"]
    assert of_half.forward == pytest.approx(language.forward / 2)
    assert 0.5 * whole.kept < half.kept < whole.kept
    assert half.split_traffic > 0 == whole.split_traffic
    assert half.weights == whole.weights


def test_an_architecture_that_does_not_tell_its_costs_is_named() -> None:
    config = read("blip2_tiny", language={"family": "transformers", "shape": {**LLAMA, "model_type": "gpt_neox"}})
    with pytest.raises(NoCost, match="gpt_neox"):
        registry.flops_per_sample(config, "language_modeling", ("qformer",), SHAPE)
