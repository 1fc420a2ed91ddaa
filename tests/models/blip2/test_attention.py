"""Attention masks: the Q-Former's three, and the language model's gated attention to the image."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from models import registry


@pytest.fixture
def model(config: Any) -> Any:
    torch.manual_seed(2)
    return registry.build(config("blip2_tiny", vocabulary=60)).eval()


IDS = torch.tensor([[1, 5, 6, 7, 2]])
MASK = torch.ones_like(IDS)


def test_decoding_attends_to_the_image_and_earlier_tokens_but_not_to_later_ones(model: Any) -> None:
    image = model.vision.encode(torch.randn(1, 3, 64, 64))
    before = model.qformer.decode(image, IDS, MASK)
    changed = IDS.clone()
    changed[0, 3] = 9
    after = model.qformer.decode(image, changed, MASK)
    torch.testing.assert_close(after[:, :3], before[:, :3])
    assert not torch.allclose(after[:, 3:], before[:, 3:])
    assert not torch.allclose(model.qformer.decode(image + torch.randn_like(image), IDS, MASK), before)


def test_queries_of_a_pair_attend_to_the_text(model: Any) -> None:
    image = model.vision.encode(torch.randn(1, 3, 64, 64))
    changed = IDS.clone()
    changed[0, 3] = 9
    assert not torch.allclose(
        model.qformer.encode_pair(image, IDS, MASK), model.qformer.encode_pair(image, changed, MASK)
    )


def test_text_alone_is_encoded_in_both_directions(model: Any) -> None:
    changed = IDS.clone()
    changed[0, 3] = 9
    assert not torch.allclose(model.qformer.encode_text(IDS, MASK), model.qformer.encode_text(changed, MASK))


def test_a_closed_gate_leaves_the_language_model_blind_and_an_open_one_does_not(model: Any) -> None:
    tokens = torch.randn(1, 8, 64)
    with torch.no_grad():
        plain = model.language(IDS).logits
        with model.adapters.attending(tokens):
            seeing = model.language(IDS).logits
        for adapter in model.adapters.values():
            adapter.gate.zero_()
        with model.adapters.attending(tokens):
            blind = model.language(IDS).logits
    assert not torch.allclose(seeing, plain)
    torch.testing.assert_close(blind, plain)


def test_open_gates_with_outputs_of_zero_add_nothing_and_learn_at_once(config: Any) -> None:
    adapters = {"gate": 1.0, "zero_output": True}
    model: Any = registry.build(config("blip2_tiny", vocabulary=60, adapters=adapters)).eval()
    with model.adapters.attending(torch.randn(1, 8, 64)):
        seeing = model.language(IDS).logits
    torch.testing.assert_close(seeing, model.language(IDS).logits)
    seeing.sum().backward()
    assert all(adapter.out.weight.grad.abs().max() > 0 for adapter in model.adapters.values())
