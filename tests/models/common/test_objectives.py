"""The loss of writing a text."""

from __future__ import annotations

import pytest
import torch

from models.common.objectives import target_loss


def test_the_loss_is_the_mean_over_target_tokens_only() -> None:
    logits = torch.zeros(2, 3, 8)
    logits[1, 1:] = torch.randn(2, 8) * 100  # padding's predictions do not matter
    ids, mask = torch.tensor([[5, 6, 2], [2, 0, 0]]), torch.tensor([[1, 1, 1], [1, 0, 0]])
    assert target_loss(logits, ids, mask).item() == pytest.approx(torch.tensor(8.0).log().item())
