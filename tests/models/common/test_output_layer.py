"""The output layer: in chunks and shares of the vocabulary the same loss and gradients as from all logits at once."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from models.common.output_layer import OutputLayer, set_loss_chunk, split_vocabulary
from tests.stages.train.trainer.launch_ranks import launch_ranks

TOKENS, WIDTH, VOCABULARY = 23, 12, 37


def drawn(dtype: torch.dtype = torch.float32, bias: bool = False) -> tuple[OutputLayer, Tensor, Tensor]:
    torch.manual_seed(1)
    layer = OutputLayer(WIDTH, VOCABULARY, bias).to(dtype)
    nn.init.normal_(layer.weight)
    return layer, torch.randn(TOKENS, WIDTH, dtype=dtype).requires_grad_(), torch.randint(VOCABULARY, (TOKENS,))


def gradients(loss: Tensor, tensors: list[Tensor]) -> list[Tensor]:
    return list(torch.autograd.grad(loss, tensors))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("chunk", [1, 5, 23, 100])
def test_chunks_give_the_loss_and_the_gradients_of_all_logits(chunk: int, smoothing: float, bias: bool) -> None:
    layer, hidden, targets = drawn(bias=bias)
    layer.chunk = chunk
    expected = F.cross_entropy(layer(hidden), targets, reduction="sum", label_smoothing=smoothing) / 7
    found = layer(hidden, targets, label_smoothing=smoothing) / 7
    torch.testing.assert_close(found, expected)
    learnt = [hidden, *layer.parameters()]
    for ours, theirs in zip(gradients(found, learnt), gradients(expected, learnt), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_bias_from_elsewhere_moves_logits_and_loss_alike() -> None:
    layer, hidden, targets = drawn()
    bias = torch.randn(1, VOCABULARY)
    logits = layer(hidden, logits_bias=bias)
    torch.testing.assert_close(logits, layer(hidden) + bias)
    expected = F.cross_entropy(logits, targets, reduction="sum")
    found = layer(hidden, targets, logits_bias=bias)
    for ours, theirs in zip(gradients(found, [hidden]), gradients(expected, [hidden]), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_bfloat16_is_about_as_near_to_float32_as_logits_at_once_are() -> None:
    layer, hidden, targets = drawn(torch.bfloat16)
    layer.chunk = 4
    exact, exact_hidden = OutputLayer(WIDTH, VOCABULARY, bias=False), hidden.detach().float().requires_grad_()
    exact.load_state_dict({"weight": layer.weight.detach().float()})
    reference = F.cross_entropy(exact(exact_hidden), targets, reduction="sum") / TOKENS
    wanted = gradients(reference, [exact_hidden, exact.weight])
    at_once = F.cross_entropy(layer(hidden).float(), targets, reduction="sum") / TOKENS
    plain = gradients(at_once, [hidden, layer.weight])
    found = layer(hidden, targets) / TOKENS
    assert found.dtype == torch.float32
    assert abs(found - reference) <= 1.1 * abs(at_once - reference) + 1e-6
    for ours, theirs, true in zip(gradients(found, [hidden, layer.weight]), plain, wanted, strict=True):
        assert ours.dtype == torch.bfloat16
        # Once more rounded: gradients are taken of the sum, and then divided.
        assert (ours.float() - true).norm() <= 1.5 * (theirs.float() - true).norm()


def test_a_tied_embedding_gets_the_gradients_of_both_its_uses() -> None:
    layer, _, targets = drawn()
    embedding = nn.Embedding(VOCABULARY, WIDTH)
    layer.weight = embedding.weight
    expected = F.cross_entropy(F.linear(embedding(targets), embedding.weight), targets.flip(0), reduction="sum")
    (theirs,) = gradients(expected, [embedding.weight])
    (ours,) = gradients(layer(embedding(targets), targets.flip(0)), [embedding.weight])
    torch.testing.assert_close(ours, theirs)


class Recorder(TorchDispatchMode):
    """Notes the shapes of all tensors that operations make, views aside."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: set[tuple[int, ...]] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        made = func(*args, **(kwargs or {}))
        taken = {arg.untyped_storage().data_ptr() for arg in args if isinstance(arg, Tensor)}
        for tensor in made if isinstance(made, tuple | list) else [made]:
            if isinstance(tensor, Tensor) and tensor.untyped_storage().data_ptr() not in taken:
                self.shapes.add(tuple(tensor.shape))
        return made


def test_logits_of_more_than_a_chunk_never_exist() -> None:
    layer, hidden, targets = drawn()
    set_loss_chunk(nn.Sequential(layer), 5)
    with Recorder() as recorder:
        layer(hidden, targets, label_smoothing=0.1).backward()
    rows = {shape[0] for shape in recorder.shapes if len(shape) == 2 and shape[1] == VOCABULARY}
    assert rows == {5, 3}  # 23 tokens in chunks of 5
    assert hidden.grad is not None


def test_of_a_frozen_weight_no_gradient_is_computed() -> None:
    layer, hidden, targets = drawn()
    layer.requires_grad_(False)
    with Recorder() as recorder:
        layer(hidden, targets).backward()
    assert layer.weight.grad is None
    assert hidden.grad is not None
    assert (VOCABULARY, WIDTH) not in recorder.shapes


def test_without_gradients_only_the_loss_is_computed() -> None:
    layer, hidden, targets = drawn()
    expected = layer(hidden, targets)
    with torch.no_grad(), Recorder() as recorder:
        found = layer(hidden, targets)
    assert found == expected
    assert not found.requires_grad
    assert not {(VOCABULARY, WIDTH), (TOKENS, WIDTH)} & recorder.shapes


def test_no_tokens_cost_nothing() -> None:
    layer, hidden, targets = drawn()
    loss = layer(hidden[:0], targets[:0])
    loss.backward()
    assert loss == 0
    assert layer.weight.grad is not None
    assert not layer.weight.grad.any()


def test_a_layer_takes_a_linear_ones_place_with_its_weights() -> None:
    linear = nn.Linear(WIDTH, VOCABULARY)
    layer = OutputLayer.of(linear)
    assert layer.weight is linear.weight
    assert layer.bias is linear.bias
    assert layer.state_dict().keys() == linear.state_dict().keys()


def compare_shared_vocabulary() -> None:
    """What one of several ranks does: the loss and the gradients of its share beside those of all logits at once."""
    ranks = dist.get_world_size()
    for vocabulary in (37, 4, 2):  # the last share is smaller, or empty
        for smoothing in (0.0, 0.1):
            torch.manual_seed(1)
            layer = OutputLayer(12, vocabulary)
            layer.chunk = 5
            hidden = torch.randn(23, 12, requires_grad=True)
            targets = torch.randint(vocabulary, (23,))
            learnt = [hidden, layer.weight, *([] if layer.bias is None else [layer.bias])]
            whole = F.cross_entropy(layer(hidden), targets, reduction="sum", label_smoothing=smoothing)
            expected = torch.autograd.grad(whole, learnt)
            split_vocabulary(nn.Sequential(layer), dist.group.WORLD)
            shared = layer(hidden, targets, label_smoothing=smoothing)
            torch.testing.assert_close(shared, whole)
            found = torch.autograd.grad(shared, learnt)
            for ours, theirs in zip(found, expected, strict=True):
                torch.testing.assert_close(ours, theirs)
            everyone = [torch.empty_like(layer.weight) for _ in range(ranks)]
            dist.all_gather(everyone, found[1])
            assert all(torch.equal(everyone[0], other) for other in everyone), "equal weights must stay equal"


def test_ranks_that_share_the_vocabulary_get_the_loss_and_gradients_of_one() -> None:
    launch_ranks(3, compare_shared_vocabulary, timeout=120, deepspeed=False)
