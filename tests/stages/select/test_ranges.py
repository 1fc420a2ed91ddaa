"""A selection does not depend on how the index is divided, nor on what does the work; shares by their definition."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from fractions import Fraction as Exact
from math import floor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.base.tasks import OnRay
from stages.select.config import SelectConfig, SelectionConfig
from stages.select.job import Limits
from stages.select.mixture import epoch_samples
from stages.select.ranking import ascending
from stages.select.stage import Select
from tests.stages.select.selecting import SMALL, Selected, select

#: Selections that together use every pass.
SELECTIONS: dict[str, dict[str, Any]] = {
    "copies": {"rules": {"min_words": 3}, "duplicates": {"near": {"radius": 6}}, "max_pairs": {"a": 9}},
    "shares": {
        "rules": {
            "missing": "drop",
            "fractions": {
                "similarity": {"top": 0.6, "within": "source"},
                "oddness": {"bottom": 0.8},
                "words": {"top": 0.9, "of": "passed"},
            },
        },
        "duplicates": {"survivor": ["-oddness", "source"]},
        "mixture": {"a": {"share": 0.4, "epochs": 2.5}, "b": {"epochs": 1.5}},
    },
    "near": {
        "duplicates": {"exact": False, "near": {"max_difference": None, "max_relative_difference": None}},
        "contamination": {"near": {"radius": 4}, "min_text_overlap": 0.3},
        "mixture": {"a": {"weight": 1, "epochs": 0.6}, "b": {"weight": 1}},
    },
}


def config_of(name: str, **changes: Any) -> SelectConfig:
    selection = SelectionConfig.model_validate({"name": name, **SELECTIONS[name], **changes})
    return SelectConfig(selection=selection, private_sources=["b"] if name == "near" else [])


def shown(selected: Selected) -> tuple[Any, ...]:
    """Everything that a user sees of a selection."""
    report = selected.report()
    samples = {reason: [(row.uid, row.image_uid) for row in rows] for reason, rows in sorted(report.samples.items())}
    return (
        selected.verdicts().to_pylist(),
        selected.contamination().to_pylist(),
        json.dumps(report.numbers, sort_keys=True),
        samples,
    )


@pytest.mark.parametrize("name", SELECTIONS)
def test_ranges_and_limits_change_nothing(make_index: Callable[..., Any], random_rows, name: str) -> None:
    rows = random_rows(3, count=90)
    whole = shown(select(make_index(**rows), config_of(name)))
    assert {row["reason"].partition(".")[0] for row in whole[0]} > {"", "download"}
    for range_rows, limits in ((70, SMALL), (1, None)):
        index = make_index(**rows, range_rows=range_rows)
        assert len(index.ranges) in ((3, 4) if range_rows == 70 else (10,))
        assert shown(select(index, config_of(name), limits=limits)) == whole


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("name", SELECTIONS)
def test_ray_changes_nothing(make_index: Callable[..., Any], random_rows, name: str) -> None:
    rows = random_rows(5, count=90)
    whole = shown(select(make_index(**rows), config_of(name)))
    index = make_index(**rows, range_rows=30)
    assert shown(select(index, config_of(name), limits=Limits(40, 20, 4), tasks=OnRay())) == whole


@settings(max_examples=8, deadline=None)
@given(
    seed=st.integers(0, 1 << 30),
    top=st.booleans(),
    share=st.sampled_from([0.1, 0.3, 0.5, 0.77, 1.0]),
    column=st.sampled_from(["similarity", "oddness"]),
    within=st.sampled_from(["all", "source"]),
)
def test_shares_equal_the_plain_definition(
    make_index, random_rows, seed: int, top: bool, share: float, column: str, within: str
) -> None:
    rows = {**random_rows(seed, count=30), "near": [], "exact": [], "benchmark_near": [], "texts": []}
    images, pairs = rows["images"], rows["pairs"]
    fetched = [row["status"] == "success" and row["decoded"] for row in images]
    if column == "oddness":
        of = [(row[column], f"{n:032x}", row["source"], n) for n, row in enumerate(images) if fetched[n]]
    else:
        of = [
            (row[column], row["uid"], images[row["image"]]["source"], n)
            for n, row in enumerate(pairs)
            if fetched[row["image"]]
        ]
    groups = defaultdict(list)
    for value, uid, source, place in of:
        groups[source if within == "source" else 0].append((-value if top else value, uid, place))
    kept = {place for found in groups.values() for _, _, place in sorted(found)[: int(Exact(str(share)) * len(found))]}
    fraction = {"top" if top else "bottom": share, "within": within}
    selection = {"name": "t", "rules": {"fractions": {column: fraction}}, "duplicates": {"exact": False}}
    config = SelectConfig(selection=SelectionConfig.model_validate(selection))
    reasons = select(make_index(**rows, range_rows=12), config, limits=SMALL).reasons()
    for n, (row, reason) in enumerate(zip(pairs, reasons, strict=True)):
        if fetched[row["image"]]:
            assert (reason == "") == ((row["image"] if column == "oddness" else n) in kept)


@settings(max_examples=8, deadline=None)
@given(
    seed=st.integers(0, 1 << 30),
    cap=st.integers(0, 40),
    epochs=st.sampled_from([0.4, 1, 1.5, 2.3]),
    share=st.sampled_from([None, 0.3, 0.6]),
)
def test_caps_and_mixtures_equal_the_plain_definition(
    make_index, seed: int, cap: int, epochs: float, share: float | None
) -> None:
    random = np.random.default_rng(seed)
    images = [{"source": int(n >= 30), "part": int(random.integers(4))} for n in range(60)]
    uids = sorted(random.bytes(16).hex() for _ in images)
    pairs = [{"uid": uid, "image": n} for uid, n in zip(uids, random.permutation(60).tolist(), strict=True)]
    mixture = {"a": {"epochs": epochs, "share": share}}
    selection = SelectionConfig.model_validate(
        {"name": "t", "duplicates": {"exact": False}, "max_pairs": {"b": cap}, "mixture": mixture}
    )
    if share and not cap:
        return
    expected: dict[str, tuple[str, int]] = {}
    of_source = [[p["uid"] for p in pairs if images[p["image"]]["source"] == n] for n in (0, 1)]
    expected |= dict.fromkeys(of_source[1][cap:], ("cap", 0))
    left = [of_source[0], of_source[1][:cap]]
    numbers = epoch_samples([len(mine) for mine in left], ["a", "b"], selection.mixture)
    for mine, number, times in zip(left, numbers, (Exact(str(epochs)), Exact(1)), strict=True):
        whole = max(1, int(times))
        number = min(number, floor(times * len(mine)))
        count = number if times < 1 else min(-(-number // times), number // whole)
        again = sorted(mine[:count], key=lambda uid: uid[16:])[: max(0, number - count * whole) if times >= 1 else 0]
        for place, uid in enumerate(mine):
            times_shown = whole + (uid in again) if place < count else 0
            expected[uid] = ("" if place < count else "mixture", times_shown)
    index = make_index(images, pairs, {"a": False, "b": False}, range_rows=9)
    verdicts = select(index, SelectConfig(selection=selection), limits=SMALL).verdicts().to_pylist()
    assert {row["uid"]: (row["reason"], row["repeats"]) for row in verdicts} == expected


def test_unsigned_keys_are_in_the_order_of_the_numbers() -> None:
    values = np.array([-np.inf, -3.5, -1e-300, -0.0, 0.0, 5e-324, 0.1, 1.0, 1e300, np.inf])
    keys = ascending(values).tolist()
    assert keys == sorted(keys)
    assert len(set(keys)) == len(keys) - 1  # the zeros are equal


def test_what_does_not_fit_is_refused_before_anything_is_decided(make_index, monkeypatch) -> None:
    from stages.base.contract import UserError
    from stages.select.job import Passes

    monkeypatch.setattr(Passes, "change", lambda *words: pytest.fail("work has begun"))
    index = make_index([{}])
    for wrong in (
        {"rules": {"where": {"nothing": {"min": 1}}}},
        {"rules": {"fractions": {"language": {"top": 0.1}}}},
        {"duplicates": {"survivor": ["prettiness"]}},
        {"duplicates": {"near": {"radius": 9}}},
        {"contamination": {"near": {"hash": "phash_d4"}}},
        {"mixture": {"nobody": {"share": 0.1}}},
    ):
        config = SelectConfig(selection=SelectionConfig.model_validate({"name": "t", **wrong}))
        with pytest.raises(UserError):
            select(index, config)


def test_few_ranges_need_no_ray_and_many_do(make_index) -> None:
    images = [{"part": n} for n in range(5)]
    stage = Select(config_of("copies"))
    assert not stage.needs_ray({"index": (make_index(images[:4], range_rows=1).artifact,)})
    assert stage.needs_ray({"index": (make_index(images, range_rows=1).artifact,)})
    assert not stage.needs_ray(None)
