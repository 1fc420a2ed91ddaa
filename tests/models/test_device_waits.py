"""Objectives compute without a look at the values of a tensor, for which a GPU would be waited for in each step."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from models.blip2.contrastive import hard_negatives
from tests.stages.train.trainer.gradients import loader_of, objective_of

CASES = [
    ("blip2", "representation"),
    ("blip2", "language_modeling"),
    ("florence2", "sequence_to_sequence"),
    ("florence2", "masked_autoencoding"),
]


@pytest.mark.parametrize(("model", "objective"), CASES)
def test_no_value_is_read_in_forward_and_backward(model: str, objective: str) -> None:
    case = {"model": model, "objective": objective, "micro_batch": 4}
    module = objective_of(case)
    batch: dict[str, Any] = dict(loader_of(case, 0, 1).micro_batch(0, 0))
    # Tensors without values: whatever needs one raises.
    with FakeTensorMode(allow_non_fake_inputs=True) as fake:
        batch = {k: fake.from_tensor(v) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
        module(batch)["loss"].backward()


def test_hard_negatives_are_those_of_multinomial() -> None:
    similarity, positive = torch.randn(6, 9), torch.eye(6, 9, dtype=torch.bool)
    torch.manual_seed(1)
    drawn, _ = hard_negatives(similarity, positive)
    torch.manual_seed(1)
    weights = (similarity.softmax(dim=1) + 1e-4).masked_fill(positive, 0)
    assert torch.equal(drawn, torch.multinomial(weights, 1).squeeze(1))
