"""Beam search: equal to a loop by hand where it is greedy, and the same for a prompt in any batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from models import registry
from models.common.batch import Batch


@pytest.fixture
def model(either: Any) -> Any:
    torch.manual_seed(5)
    return registry.build(either)


def generated(model: Any, batch: Batch, rows: slice = slice(None), **changes: Any) -> torch.Tensor:
    how = {"num_beams": 1, "max_new_tokens": 6, **changes}
    return registry.generate(
        model,
        batch["pixels"],
        batch["image_index"][rows],
        batch["prompt_ids"][rows],
        batch["prompt_mask"][rows],
        **how,
    )


def trimmed(ids: torch.Tensor) -> list[list[int]]:
    """Rows up to and with eos (2), or whole."""
    return [row[: row.index(2) + 1] if 2 in row else row for row in ids.tolist()]


def test_one_beam_equals_a_greedy_loop(model: Any, batch: Batch) -> None:
    expected: list[list[int]] = []
    for row in range(len(batch["image_index"])):
        ids: list[int] = []
        while len(ids) < 6 and 2 not in ids:
            target = torch.tensor([[*ids, 0]])  # the last id is a placeholder: its own logits are needed
            logits = model.eval()(
                batch["pixels"],
                batch["image_index"][row : row + 1],
                batch["prompt_ids"][row : row + 1],
                batch["prompt_mask"][row : row + 1],
                target,
                torch.ones_like(target),
            )
            ids.append(int(logits[0, -1].argmax()))
        expected.append(ids)
    assert trimmed(generated(model, batch)) == expected


@pytest.mark.parametrize("beams", [1, 3])
def test_a_prompt_is_answered_alike_alone_and_in_a_batch(model: Any, batch: Batch, beams: int) -> None:
    together = trimmed(generated(model, batch, num_beams=beams))
    alone = [trimmed(generated(model, batch, slice(i, i + 1), num_beams=beams))[0] for i in range(len(together))]
    assert together == alone


def test_it_works_without_prompts(model: Any, batch: Batch) -> None:
    none = torch.zeros(3, 0, dtype=torch.long)
    ids = registry.generate(
        model, batch["pixels"], torch.arange(3), none, none, num_beams=2, max_new_tokens=4, min_new_tokens=2
    )
    assert ids.shape[0] == 3
    assert 2 <= ids.shape[1] <= 4
    assert all(2 not in row[:2] for row in ids.tolist())


def test_what_follows_eos_is_padding(model: Any, batch: Batch) -> None:
    for row in generated(model, batch, num_beams=3, max_new_tokens=8).tolist():
        after = row[row.index(2) + 1 :] if 2 in row else []
        assert set(after) <= {0}


def test_each_image_is_encoded_once(model: Any, batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[int] = []
    encode = model.vision.encode
    monkeypatch.setattr(model.vision, "encode", lambda pixels: encoded.append(len(pixels)) or encode(pixels))
    generated(model, batch, num_beams=3)
    assert encoded == [3]
    assert len(batch["image_index"]) == 5


def test_training_mode_is_restored(model: Any, batch: Batch) -> None:
    model.train()
    generated(model, batch)
    assert model.training
