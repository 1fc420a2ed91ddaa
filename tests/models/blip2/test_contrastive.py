"""Stage 1's contrastive losses: which pairs are negatives, and that several ranks compute the same as one."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from models.blip2 import contrastive
from models.common.text import text_key
from tests.stages.train.trainer.launch_ranks import launch_ranks

# Texts 0 and 1 are about image 50, text 2 about 51, text 3 about 52; text 3 has the words of text 0.
OF_TEXT = torch.tensor([50, 50, 51, 52])
KEYS = torch.tensor([1, 2, 3, 1])
IMAGES = torch.tensor([50, 51, 52])


def test_own_image_and_images_described_alike_are_positives() -> None:
    expected = torch.tensor([[1, 0, 1], [1, 0, 0], [0, 1, 0], [1, 0, 1]], dtype=torch.bool)
    assert torch.equal(contrastive.positives(OF_TEXT, KEYS, OF_TEXT, KEYS, IMAGES), expected)


def test_the_same_image_on_another_rank_is_a_positive() -> None:
    elsewhere = torch.tensor([51, 50, 50])
    found = contrastive.positives(OF_TEXT[:1], KEYS[:1], OF_TEXT[:1], KEYS[:1], elsewhere)
    assert found.tolist() == [[False, True, True]]


def test_image_ids_come_from_texts_and_lonely_images_match_nothing() -> None:
    ids = contrastive.image_ids(torch.tensor([0, 0, 2]), torch.tensor([50, 50, 52]), 3)
    assert ids.tolist() == [50, -2, 52]


def test_equal_texts_have_equal_keys_whatever_their_padding() -> None:
    short = text_key(torch.tensor([[5, 6, 2]]), torch.tensor([[1, 1, 1]]))
    long = text_key(torch.tensor([[5, 6, 2, 0, 0], [6, 5, 2, 0, 0]]), torch.tensor([[1, 1, 1, 0, 0]] * 2))
    assert short[0] == long[0]
    assert short[0] != long[1]


def test_hard_negatives_are_never_positives_and_follow_similarity() -> None:
    positive = torch.eye(3, dtype=torch.bool).repeat(200, 1)
    similarity = torch.tensor([[9.0, 8.0, 0.0], [0.0, 9.0, 8.0], [8.0, 0.0, 9.0]]).repeat(200, 1)
    torch.manual_seed(0)
    drawn, found = contrastive.hard_negatives(similarity, positive)
    assert found.all()
    assert not positive.gather(1, drawn[:, None]).any()
    likelier = torch.tensor([1, 2, 0]).repeat(200)
    assert (drawn == likelier).float().mean() > 0.95


def test_hard_negatives_repeat_under_a_seed_and_report_rows_without_any() -> None:
    similarity, positive = torch.randn(6, 5), torch.zeros(6, 5, dtype=torch.bool)
    positive[2] = True
    draws = []
    for _ in range(2):
        torch.manual_seed(4)
        draws.append(contrastive.hard_negatives(similarity, positive))
    assert torch.equal(draws[0][0], draws[1][0])
    assert draws[0][1].tolist() == [True, True, False, True, True, True]


def test_smoothed_targets_are_least_costly_when_predicted() -> None:
    positive = torch.tensor([[True, True, False, False]])
    target = torch.tensor([[0.475, 0.475, 0.025, 0.025]])
    entropy = -(target * target.log()).sum()
    torch.testing.assert_close(contrastive.soft_cross_entropy(target.log(), positive, 0.1), entropy)
    assert contrastive.soft_cross_entropy(torch.zeros(1, 4), positive, 0.1) > entropy


def compare_gathered_gradient() -> None:
    """What one of two ranks does: its part of a contrastive loss's gradient beside the whole of a single one."""
    torch.manual_seed(0)
    whole, weight = torch.randn(5, 3), torch.randn(3, 3)
    rows = slice(0, 2) if dist.get_rank() == 0 else slice(2, 5)  # ranks hold different numbers of rows

    def loss(local: Tensor, everyone: Tensor) -> Tensor:
        """A contrast: each local row against all rows."""
        logits = local @ everyone.T
        return (logits.logsumexp(dim=1) - (local * local).sum(dim=1)).sum()

    alone = weight.clone().requires_grad_()
    features = whole @ alone
    loss(features, features).backward()
    shared = weight.clone().requires_grad_()
    local = whole[rows] @ shared
    everyone = contrastive.gather(local)
    torch.testing.assert_close(everyone, whole @ shared)
    loss(local, everyone).backward()
    assert shared.grad is not None
    dist.all_reduce(shared.grad)  # what averaging over ranks does, but for the factor
    torch.testing.assert_close(shared.grad, alone.grad)


def test_two_ranks_get_the_gradient_that_one_would() -> None:
    launch_ranks(2, compare_gathered_gradient, timeout=120, deepspeed=False)
