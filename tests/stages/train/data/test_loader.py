"""The loader: the same samples whoever loads them, and tensors as models want them."""

from __future__ import annotations

import io
from collections import Counter
from copy import deepcopy
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image

from models.common.batch import Batch
from stages.base.contract import UserError
from stages.train.config import OptimizationConfig
from stages.train.data.dataset import DamagedSample, TokenizedText, TrainingSample
from stages.train.data.loader import Loader, collate
from stages.train.trainer.schedule import accumulation_steps


def png(number: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


def loader(data: Any, settings: OptimizationConfig, rank: int, world: int) -> Loader:
    return Loader(data, settings, 8, rank, world, accumulation_steps(settings, world, "train"))


def equal(batch: Batch, expected: Batch) -> bool:
    """Whether two batches hold the same fields with equal values."""
    ours, theirs = cast(dict[str, Any], batch), cast(dict[str, Any], expected)
    return ours.keys() == theirs.keys() and all(torch.equal(*map(torch.as_tensor, (ours[k], theirs[k]))) for k in ours)


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
        assert equal(batch, expected)


def test_prefetching_and_caching_change_nothing(numbers: Any, settings: OptimizationConfig) -> None:
    plain = settings.model_copy(update={"prefetch": 0, "image_cache_mb": 0})
    busy = settings.model_copy(update={"prefetch": 3})
    for expected, batch in zip(
        loader(numbers(30), plain, 0, 2).batches(0, 9), loader(numbers(30), busy, 0, 2).batches(0, 9), strict=True
    ):
        assert equal(batch, expected)


def test_a_data_set_smaller_than_a_batch_fills_it_epoch_after_epoch(numbers: Any, settings: Any) -> None:
    batches = [batch for step in range(3) for batch in loader(numbers(3), settings, 0, 1).batches(step, step + 1)]
    seen = [i for batch in batches for i in batch["image_id"].tolist()]
    assert Counter(seen) == {0: 8, 1: 8, 2: 8}  # 24 places, eight epochs


def test_a_damaged_sample_is_replaced_alike_whoever_loads_it(numbers: Any, settings: OptimizationConfig) -> None:
    def damaged(data: Any) -> Any:
        whole = data.sample

        def sample(number: int, epoch: int) -> TrainingSample:
            if number % 5 == 2:
                raise DamagedSample(f"uid {number}: cut short", str(number))
            if number == 6:
                return replace(whole(number, epoch), image=png(6)[:80])
            return whole(number, epoch)

        data.sample = sample
        return data

    seen: list[tuple[list[Batch], list[Any]]] = []
    for world in (1, 2, 4):
        ranks = [loader(damaged(numbers(20)), settings, rank, world) for rank in range(world)]
        batches = [batch for rank in ranks for batch in rank.batches(0, 5)]
        replaced = sorted((r for rank in ranks for r in rank.take_replaced()), key=repr)
        seen.append((batches, replaced))
    assert Counter(record.uid for record in seen[0][1]) == {"2": 2, "7": 2, "12": 2, "17": 2, "6": 2}
    assert seen[0][1] == seen[1][1] == seen[2][1]
    assert all(int(record.by) % 5 != 2 and record.by != "6" for record in seen[0][1])
    shown = [Counter(i for batch in batches for i in batch["image_id"].tolist()) for batches, _ in seen]
    assert shown[0] == shown[1] == shown[2]
    assert all(number % 5 != 2 and number != 6 for number in shown[0])


def test_training_can_be_told_to_stop_at_a_damaged_sample(numbers: Any, settings: OptimizationConfig) -> None:
    data = numbers(8)
    whole = data.sample
    data.sample = lambda number, epoch: replace(whole(number, epoch), image=b"no image")
    strict = loader(data, settings.model_copy(update={"corrupt_samples": "stop"}), 0, 1)
    with pytest.raises(UserError, match=r"uid \d.*corrupt_samples=stop"):
        next(strict.batches(0, 1))
    with pytest.raises(UserError, match=r"100 others drawn in its place are damaged too"):
        next(loader(data, settings, 0, 1).batches(0, 1))


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
    def text(prompt: list[int], target: list[int]) -> TokenizedText:
        return TokenizedText(np.array(prompt, dtype=np.int64), np.array(target, dtype=np.int64))

    pixels = np.zeros((2, 3, 2, 2), dtype=np.float32)
    batch = collate(pixels, [7, 8], [[text([5, 6], [9, 2]), text([5], [9, 9, 2])], [text([], [2])]])
    assert batch["prompt_ids"].tolist() == [[5, 6], [0, 5], [0, 0]]
    assert batch["prompt_mask"].tolist() == [[1, 1], [0, 1], [0, 0]]
    assert batch["target_ids"].tolist() == [[9, 2, 0], [9, 9, 2], [2, 0, 0]]
    assert batch["target_mask"].tolist() == [[1, 1, 0], [1, 1, 1], [1, 0, 0]]
    assert batch["image_index"].tolist() == [0, 0, 1]
    assert batch["image_id"].tolist() == [7, 7, 8]


def test_captions_alone_have_prompts_of_length_0() -> None:
    text = TokenizedText(np.empty(0, dtype=np.int64), np.array([4, 2]))
    batch = collate(np.zeros((1, 3, 2, 2), dtype=np.float32), [0], [[text]])
    assert batch["prompt_ids"].shape == (1, 0)


SOURCES = [("s", "images")[number % 2] for number in range(24)]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_phase_that_needs_texts_sees_the_pairs_alone_and_one_that_needs_none_sees_all(
    settings: OptimizationConfig, pair_files: Any, workers: int
) -> None:
    from stages.train.data.pairs import PairDataset

    settings = settings.model_copy(update={"loader_workers": workers})
    shards, tokens = pair_files([10, 14], SOURCES, image_only=["images"])

    def seen(needs_texts: bool, steps: int) -> tuple[Counter[int], list[Batch]]:
        data = PairDataset(shards, tokens, max_tokens=8)
        made = Loader(data, settings, 8, 0, 1, accumulation_steps(settings, 1, "train"), needs_texts=needs_texts)
        batches: list[Batch] = []
        images: Counter[int] = Counter()
        for step in range(steps):
            samples = [number for micro in range(made.accumulation) for _, number in made._samples((step, micro))]
            images.update(samples)
        for batch in made.batches(0, steps):
            batches.append(deepcopy(batch))  # it may lie in memory that workers fill again
        made.close()
        return images, batches

    captioned, batches = seen(True, 3)  # two epochs of 12
    assert captioned == dict.fromkeys(range(0, 24, 2), 2)
    assert all(len(batch["pixels"]) == len(batch["image_index"]) == 2 for batch in batches)
    everything, batches = seen(False, 3)  # one epoch of 24
    assert everything == dict.fromkeys(range(24), 1)
    assert sum(len(batch["pixels"]) for batch in batches) == 24
    assert sum(len(batch["image_index"]) for batch in batches) == 12
    for batch in batches:
        assert torch.isfinite(batch["pixels"]).all()
        assert batch["image_index"].tolist() == sorted(set(batch["image_index"].tolist()))
        assert len(batch["image_id"]) == len(batch["prompt_ids"]) == len(batch["target_ids"])


def test_a_damaged_pair_is_not_replaced_by_an_image_without_a_text(
    settings: OptimizationConfig, pair_files: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stages.train.data.pairs import PairDataset

    # The damaged pair is the only one of its source: whatever is drawn in its place is of another.
    monkeypatch.setattr("stages.train.data.transform._DRAWS", 50)
    sources = ["alone", "s", *["images"] * 22]
    data = PairDataset(*pair_files([24], sources, image_only=["images"]), max_tokens=8)
    whole = data.sample

    def sample(number: int, epoch: int) -> TrainingSample:
        if number == 0:
            raise DamagedSample("uid 0: cut short", "0")
        return whole(number, epoch)

    monkeypatch.setattr(data, "sample", sample)
    made = Loader(data, settings, 8, 0, 1, accumulation_steps(settings, 1, "train"))
    batches = list(made.batches(0, 2))
    assert {record.by for record in made.take_replaced()} == {f"{1:032x}"}
    assert all(len(batch["image_index"]) == 2 for batch in batches)
