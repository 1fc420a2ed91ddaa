"""Training: every objective learns, reaches exactly its parts, and is unmoved by how a batch is put together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from models import registry
from models.common import objectives
from models.common.batch import Batch
from models.common.config import TextSettings
from models.common.errors import UserError

OBJECTIVES = [
    ("blip2_tiny", "representation"),
    ("blip2_tiny", "language_modeling"),
    ("florence2_tiny", "masked_autoencoding"),
    ("florence2_tiny", "sequence_to_sequence"),
]
each = pytest.mark.parametrize(("name", "objective"), OBJECTIVES)


@each
def test_a_few_steps_lower_the_loss(name: str, objective: str, config: Callable[..., Any], batch: Batch) -> None:
    torch.manual_seed(0)
    model = registry.build(config(name, vocabulary=60)).train()
    module = registry.objective(model, objective)
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3)
    losses = []
    for _ in range(12):
        torch.manual_seed(1)  # the same masks and negatives each time
        loss = module(batch)["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


@each
def test_gradients_reach_all_of_the_used_parts_and_nothing_else(
    name: str, objective: str, config: Callable[..., Any], batch: Batch
) -> None:
    shape = config(name, vocabulary=60)
    model = registry.build(shape)
    registry.set_trainable(model, None)
    registry.objective(model, objective)(batch)["loss"].backward()
    used = registry.objective_parts(shape, objective)
    for part, module in model.named_parts().items():
        reached = [p.grad is not None for p in module.parameters()]
        assert all(reached) if part in used else not any(reached), part


@each
def test_gradient_checkpointing_changes_no_gradient(
    name: str, objective: str, config: Callable[..., Any], batch: Batch
) -> None:
    model = registry.build(config(name, vocabulary=60)).train()
    module = registry.objective(model, objective)
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            model.activation_checkpointing_enable()
        torch.manual_seed(1)
        model.zero_grad()
        module(batch)["loss"].backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(recomputed, plain)


@each
def test_bfloat16_gives_a_finite_loss_and_gradients(
    name: str, objective: str, config: Callable[..., Any], batch: Batch
) -> None:
    model = registry.build(config(name, vocabulary=60)).bfloat16()
    loss = registry.objective(model, objective)(batch)["loss"]
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_frozen_parts_get_no_gradient(either: Any, batch: Batch) -> None:
    model = registry.build(either)
    registry.set_trainable(model, ["language"])
    objective = registry.spec(either.architecture).text_objective
    registry.objective(model, objective)(batch)["loss"].backward()
    for part, module in model.named_parts().items():
        assert all((p.grad is not None) == (part == "language") for p in module.parameters()), part


def test_sharing_an_image_equals_repeating_it(either: Any, batch: Batch) -> None:
    model = registry.build(either).eval()
    module = registry.objective(model, registry.spec(either.architecture).text_objective)
    index = batch["image_index"]
    repeated = Batch(**{**batch, "pixels": batch["pixels"][index], "image_index": torch.arange(len(index))})
    torch.testing.assert_close(module(repeated)["loss"], module(batch)["loss"])


def test_more_padding_changes_no_loss(either: Any, batch: Batch) -> None:
    model = registry.build(either).eval()
    module = registry.objective(model, registry.spec(either.architecture).text_objective)
    pad = torch.nn.functional.pad
    wider = {name: pad(batch[name], (3, 0)) for name in ("prompt_ids", "prompt_mask")}
    wider |= {name: pad(batch[name], (0, 2)) for name in ("target_ids", "target_mask")}
    torch.testing.assert_close(module(Batch(**{**batch, **wider}))["loss"], module(batch)["loss"])


def test_more_padding_changes_no_stage_one_loss(config: Callable[..., Any], batch: Batch) -> None:
    model = registry.build(config("blip2_tiny", vocabulary=60)).eval()
    module = registry.objective(model, "representation")
    pad = torch.nn.functional.pad
    wider = {name: pad(batch[name], (0, 2)) for name in ("target_ids", "target_mask")}
    torch.manual_seed(1)
    expected = module(batch)
    torch.manual_seed(1)
    torch.testing.assert_close(module(Batch(**{**batch, **wider})), expected)


def test_one_image_alone_has_no_negatives_and_a_finite_loss(config: Callable[..., Any], batch: Batch) -> None:
    model = registry.build(config("blip2_tiny", vocabulary=60))
    alone = {name: value[:2] for name, value in batch.items() if name != "pixels"}
    out = registry.objective(model, "representation")(Batch(pixels=batch["pixels"][:1], **alone))
    assert torch.isfinite(out["loss"])


def test_an_objective_of_the_other_model_is_refused(config: Callable[..., Any]) -> None:
    model = registry.build(config("blip2_tiny", vocabulary=60))
    with pytest.raises(UserError, match="'masked_autoencoding' is not one of blip2's: representation"):
        registry.objective(model, "masked_autoencoding")


def test_an_unknown_part_is_refused(either: Any) -> None:
    with pytest.raises(UserError, match="no such part: head; the model's are vision"):
        registry.set_trainable(registry.build(either), ["head"])


def test_where_one_token_begins_and_ends_texts_stage_one_writes_after_another(
    config: Callable[..., Any], batch: Batch
) -> None:
    losses = []
    for pad_id in (0, 1):
        torch.manual_seed(5)
        model = registry.build(config("blip2_tiny", vocabulary=60), pad_id=pad_id, bos_id=2, eos_id=2).eval()
        torch.manual_seed(6)
        losses.append(registry.objective(model, "representation")(batch))
    torch.testing.assert_close(losses[0]["itc"], losses[1]["itc"])
    assert losses[0]["itg"] != losses[1]["itg"], "the first token written is not the one that begins what is read"


class Parrot(torch.nn.Module):
    """A model of logits alone, as an architecture of another package may be."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        return self.logits


def test_of_a_model_that_returns_logits_the_loss_is_the_mean_over_target_tokens_only(batch: Batch) -> None:
    logits = torch.zeros(*batch["target_ids"].shape, 60)
    logits[batch["target_mask"] == 0] = torch.randn(60) * 100  # padding's predictions do not matter
    model: Any = Parrot(logits)
    for smoothing in (0.0, 0.2):
        objective = objectives.TextGeneration(model, TextSettings(label_smoothing=smoothing))
        assert objective(batch)["loss"].item() == pytest.approx(torch.tensor(60.0).log().item())
