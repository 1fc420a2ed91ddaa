"""What phases see of data with images that have no text, and where in their order they begin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from models import registry
from stages.base.contract import UserError
from stages.train.config import PhaseConfig
from stages.train.data.pairs import PairDataset
from stages.train.data.phases import check_texts, first_data_step, samples_by_phase
from stages.train.data.sampler import BatchSampler

PHASES = [PhaseConfig(objective="masked_autoencoding", steps=1), PhaseConfig(objective="captioning", steps=1)]


def dataset(pair_files: Any, image_only: Sequence[str] = ("images",)) -> PairDataset:
    sources = [("s", "images")[number % 3 == 0] for number in range(12)]
    return PairDataset(*pair_files([12], sources, image_only=list(image_only)), max_tokens=8)


def test_an_epoch_of_a_phase_is_what_it_sees(pair_files: Any) -> None:
    assert samples_by_phase(dataset(pair_files), [False, True, False]) == [12, 8, 12]
    assert samples_by_phase(dataset(pair_files, ()), [False, True]) == [12, 12]


def test_phases_go_on_in_the_order_of_the_samples_that_they_share(pair_files: Any) -> None:
    mixed, captioned, steps = dataset(pair_files), dataset(pair_files, ()), [3, 4, 5, 6]
    needs = [False, True, False, True]
    assert [first_data_step(mixed, needs, phase, steps) for phase in range(4)] == [0, 0, 3, 4]
    # Where all samples have a text all phases share them: as before there were images without any.
    assert [first_data_step(captioned, needs, phase, steps) for phase in range(4)] == [0, 3, 7, 12]


def test_two_halves_of_an_epoch_show_each_sample_once_around_a_phase_that_sees_others(pair_files: Any) -> None:
    data, needs, steps = dataset(pair_files), [True, False, True], [2, 5, 2]
    seen = []
    for phase in (0, 2):
        first = first_data_step(data, needs, phase, steps)
        sampler = BatchSampler(data, 0, 2)
        seen += [number for step in range(first, first + 2) for number in sampler.batch(step)[1].tolist()]
    assert sorted(seen) == [n for n in range(12) if n % 3]


@pytest.mark.parametrize(
    ("image_only", "mixture", "message"),
    [
        ({}, None, None),
        ({"images": 4}, None, None),
        ({"images": 9, "more": 3}, None, r"train\.phases\[1\]\.objective=captioning needs texts, and all 12 samples"),
        ({"images": 4}, {"s": 0.5, "images": 1}, None),
        (
            {"images": 4},
            {"s": 0, "images": 1},
            r"train\.phases\[1\].*train\.mixture gives a weight to image-only .*\(images\)",
        ),
    ],
)
def test_a_phase_that_would_see_nothing_is_refused_from_the_shards_own_account(
    image_only: Mapping[str, int], mixture: Mapping[str, float] | None, message: str | None
) -> None:
    listed = {"samples": 12, "image_only": image_only}
    if message is None:
        check_texts(PHASES, [False, True], listed, mixture)
    else:
        with pytest.raises(UserError, match=message):
            check_texts(PHASES, [False, True], listed, mixture)
    check_texts(PHASES, [False, False], listed, mixture)  # which needs none


def test_which_objectives_need_texts() -> None:
    needs = {
        (architecture, name): objective.needs_texts
        for architecture in ("blip2", "florence2")
        for name, objective in registry.spec(architecture).objectives.items()
    }
    assert {key for key, needed in needs.items() if not needed} == {("florence2", "masked_autoencoding")}
