"""The loader: the same samples whoever loads them, and tensors as models want them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from models.batch import Batch
from stages.train.batching import accumulation_steps
from stages.train.collate import collate
from stages.train.config import OptimizationConfig
from stages.train.dataset import Text
from stages.train.loader import Loader


def loader(data: Any, settings: OptimizationConfig, rank: int, world: int) -> Loader:
    return Loader(data, settings, 8, rank, world, accumulation_steps(settings, world, "train"))


def by_sample(batches: list[Batch]) -> dict[int, torch.Tensor]:
    return {int(i): pixels for batch in batches for i, pixels in zip(batch["image_id"], batch["pixels"], strict=True)}


def test_one_two_and_four_ranks_see_the_same_augmented_samples_at_each_step(numbers: Any, settings: Any) -> None:
    data = numbers(21)
    for step in (0, 1, 5):  # step 2 and later cross into the next epoch
        seen = []
        for world in (1, 2, 4):
            ranks = [loader(data, settings, rank, world) for rank in range(world)]
            batches = [r.micro_batch(step, micro) for r in ranks for micro in range(r.accumulation)]
            seen.append(by_sample(batches))
        assert seen[0].keys() == seen[1].keys() == seen[2].keys()
        for other in seen[1:]:
            assert all(torch.equal(seen[0][i], other[i]) for i in seen[0])


def test_a_loader_that_starts_in_mid_epoch_goes_on_where_another_stopped(numbers: Any, settings: Any) -> None:
    data = numbers(50)
    whole = list(loader(data, settings, 1, 2).batches(0, 9))
    resumed = list(loader(data, settings, 1, 2).batches(4, 9))
    for expected, batch in zip(whole[4 * 2 :], resumed, strict=True):
        assert all(torch.equal(batch[key], expected[key]) for key in expected)  # type: ignore[literal-required]


def test_threads_and_prefetching_change_nothing(numbers: Any, settings: OptimizationConfig) -> None:
    plain = settings.model_copy(update={"prefetch": 0})
    busy = settings.model_copy(update={"prefetch": 3, "loader_threads": 4})
    for expected, batch in zip(
        loader(numbers(30), plain, 0, 2).batches(0, 5), loader(numbers(30), busy, 0, 2).batches(0, 5), strict=True
    ):
        assert all(torch.equal(batch[key], expected[key]) for key in expected)  # type: ignore[literal-required]


def test_ranks_pad_alike(numbers: Any, settings: OptimizationConfig) -> None:
    ranks = [loader(numbers(30), settings, rank, 4) for rank in range(4)]
    for step in range(5):
        shapes = {(b["prompt_ids"].shape, b["target_ids"].shape) for b in (r.micro_batch(step, 0) for r in ranks)}
        assert len(shapes) == 1


def test_an_error_while_preparing_reaches_the_reader(numbers: Any, settings: OptimizationConfig) -> None:
    data = numbers(30)
    data.sample = lambda number, epoch: 1 / 0
    with pytest.raises(ZeroDivisionError):
        next(loader(data, settings, 0, 1).batches(0, 3))


def test_prompts_are_padded_left_and_targets_right() -> None:
    def text(prompt: list[int], target: list[int]) -> Text:
        return Text(np.array(prompt, dtype=np.int64), np.array(target, dtype=np.int64))

    pixels = [np.zeros((3, 2, 2), dtype=np.float32)] * 2
    batch = collate(pixels, [7, 8], [[text([5, 6], [9, 2]), text([5], [9, 9, 2])], [text([], [2])]])
    assert batch["prompt_ids"].tolist() == [[5, 6], [0, 5], [0, 0]]
    assert batch["prompt_mask"].tolist() == [[1, 1], [0, 1], [0, 0]]
    assert batch["target_ids"].tolist() == [[9, 2, 0], [9, 9, 2], [2, 0, 0]]
    assert batch["target_mask"].tolist() == [[1, 1, 0], [1, 1, 1], [1, 0, 0]]
    assert batch["image_index"].tolist() == [0, 0, 1]
    assert batch["image_id"].tolist() == [7, 7, 8]


def test_captions_alone_have_prompts_of_length_0() -> None:
    text = Text(np.empty(0, dtype=np.int64), np.array([4, 2]))
    batch = collate([np.zeros((3, 2, 2), dtype=np.float32)], [0], [[text]])
    assert batch["prompt_ids"].shape == (1, 0)
