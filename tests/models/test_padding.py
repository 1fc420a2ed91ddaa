"""Attention without masks: training needs none among right-padded tokens, and predicts what masked attention would."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.modeling_outputs import BaseModelOutput

from models import registry
from models.common.batch import Batch
from models.common.text import frame_prompt, pad_right, positions, shift_right


def built(config: Callable[..., Any], name: str) -> Any:
    torch.manual_seed(4)
    return registry.build(config(name, vocabulary=60)).eval()


def forward(model: Any, batch: Batch) -> Tensor:
    names = ("pixels", "image_index", "prompt_ids", "prompt_mask", "target_ids", "target_mask")
    logits: Tensor = model(*(batch[name] for name in names))  # type: ignore[literal-required]
    return logits


def without_prompts(batch: Batch) -> Batch:
    empty = batch["prompt_ids"][:, :0]
    return Batch(**{**batch, "prompt_ids": empty, "prompt_mask": empty})


def equal_prompts(batch: Batch) -> Batch:
    """Prompts of two tokens each."""
    ids = batch["target_ids"].new_full((len(batch["target_ids"]), 2), 20)
    return Batch(**{**batch, "prompt_ids": ids, "prompt_mask": torch.ones_like(ids), "full_prompts": True})


@contextmanager
def attention_masks(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bool]]:
    """Whether each call of SDPA has a mask."""
    masked: list[bool] = []
    attend = F.scaled_dot_product_attention

    def watched(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, **more: Any) -> Tensor:
        masked.append(attn_mask is not None)
        return attend(query, key, value, attn_mask=attn_mask, **more)

    with monkeypatch.context() as patched:
        patched.setattr(F, "scaled_dot_product_attention", watched)
        yield masked


@pytest.mark.parametrize("change", [lambda batch: batch, without_prompts, equal_prompts])
def test_blip2_predicts_what_masked_attention_over_left_padded_prompts_would(
    change: Callable[[Batch], Batch], config: Callable[..., Any], batch: Batch
) -> None:
    model, batch = built(config, "blip2_tiny"), change(batch)
    prompt, mask = frame_prompt(batch["prompt_ids"], batch["prompt_mask"], pad_id=0, bos_id=1)
    mask = torch.cat([mask, batch["target_mask"][:, :-1]], dim=1)
    with model.adapters.attending(model.image_tokens(batch["pixels"])[batch["image_index"]]):
        masked = model.language(
            input_ids=torch.cat([prompt, batch["target_ids"][:, :-1]], dim=1),
            attention_mask=mask,
            position_ids=positions(mask),
            logits_to_keep=batch["target_ids"].shape[1],
        ).logits
    counted = batch["target_mask"].bool()
    torch.testing.assert_close(forward(model, batch)[counted], masked[counted])


@pytest.mark.parametrize("change", [lambda batch: batch, without_prompts, equal_prompts])
def test_florence2_predicts_what_mbart_with_all_masks_does(
    change: Callable[[Batch], Batch], config: Callable[..., Any], batch: Batch
) -> None:
    model, batch = built(config, "florence2_tiny"), change(batch)
    image = model.projector(model.vision.encode(batch["pixels"])[:, 1:])[batch["image_index"]]
    ids, mask = pad_right(batch["prompt_ids"], batch["prompt_mask"])
    mask = torch.cat([mask.new_ones(image.shape[:2]), mask], dim=1)
    embedded = torch.cat([image, model.language.get_input_embeddings()(ids)], dim=1)
    states = model.language.get_encoder()(inputs_embeds=embedded, attention_mask=mask).last_hidden_state
    masked = model.language(
        encoder_outputs=BaseModelOutput(last_hidden_state=states),
        attention_mask=mask,
        decoder_input_ids=shift_right(batch["target_ids"], 1),
        decoder_attention_mask=batch["target_mask"],
        use_cache=False,
    ).logits
    counted = batch["target_mask"].bool()
    torch.testing.assert_close(forward(model, batch)[counted], masked[counted])


def test_the_objective_equals_the_mean_over_the_models_logits(either: Any, batch: Batch) -> None:
    model = registry.build(either).eval()
    objective = registry.objective(model, registry.spec(either.architecture).text_objective, {"label_smoothing": 0.1})
    for changed in (batch, without_prompts(batch), equal_prompts(batch)):
        counted = changed["target_mask"].bool()
        logits, targets = forward(model, changed)[counted], changed["target_ids"][counted]
        torch.testing.assert_close(objective(changed)["loss"], F.cross_entropy(logits, targets, label_smoothing=0.1))


def test_no_attention_of_training_has_a_mask_unless_prompts_are_padded(
    config: Callable[..., Any], batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    objectives = {"blip2_tiny": "language_modeling", "florence2_tiny": "sequence_to_sequence"}
    for name, objective in objectives.items():
        module = registry.objective(built(config, name), objective)
        for changed in (batch, without_prompts(batch), equal_prompts(batch)):
            with attention_masks(monkeypatch) as masked:
                module(changed)
            # Florence-2's encoder has padding in its midst, which its own and the decoder's attention must leave out.
            padded = changed is batch and name == "florence2_tiny"
            assert sum(masked) == (4 if padded else 0)
            assert len(masked) > 6
