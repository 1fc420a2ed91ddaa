"""The linear operation under ZeRO-3: the results of torch's own, and nothing kept in vain."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from stages.train.trainer.partitioned_linear import partitioned_linear

LEARNING = [combination for combination in itertools.product([False, True], repeat=3) if any(combination)]


@pytest.mark.parametrize("shape", [(3,), (4, 3), (2, 4, 3)])
@pytest.mark.parametrize("learning", LEARNING)
def test_results_and_gradients_are_those_of_torch(shape: tuple[int, ...], learning: tuple[bool, ...]) -> None:
    torch.manual_seed(0)
    tensors = [torch.randn(size) for size in (shape, (5, 3), (5,))]
    made, gradients = [], []
    for linear in (F.linear, partitioned_linear):
        given = [tensor.clone().requires_grad_(learns) for tensor, learns in zip(tensors, learning, strict=True)]
        made.append(linear(*given))
        (made[-1] ** 2).sum().backward()
        gradients.append([tensor.grad for tensor in given])
    torch.testing.assert_close(made[1], made[0])
    torch.testing.assert_close(partitioned_linear(*tensors[:2]), F.linear(*tensors[:2]))
    for ours, theirs in zip(gradients[1], gradients[0], strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("frozen", [False, True])
def test_an_input_is_kept_only_for_a_weight_that_learns_and_a_weight_never(frozen: bool) -> None:
    kept: list[Tensor] = []
    states = torch.randn(4, 3, requires_grad=True)
    weight = torch.nn.Parameter(torch.randn(5, 3), requires_grad=not frozen)
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        partitioned_linear(states, weight)
    assert [tensor.data_ptr() for tensor in kept] == ([] if frozen else [states.data_ptr()])
