"""Intervals by bootstrap: the right width, repeatable, whatever the order and the block."""

from __future__ import annotations

import numpy as np
import pytest

from stages.evaluate.metrics import bootstrap
from stages.evaluate.metrics.additive import labels, mean, mean_by_group
from stages.evaluate.metrics.bootstrap import Resampling, compare, intervals

VALUES = np.random.default_rng(1).random(400)


def test_the_interval_of_a_mean_is_that_of_the_normal_distribution():
    low, high = intervals([mean("x", VALUES)], range(400), Resampling(4000))["x"]
    spread = 1.96 * VALUES.std() / 20
    assert low == pytest.approx(VALUES.mean() - spread, abs=0.1 * spread)
    assert high == pytest.approx(VALUES.mean() + spread, abs=0.1 * spread)


def test_units_that_answer_alike_widen_the_interval():
    alike = np.repeat(VALUES[:100], 4)
    low, high = intervals([mean("x", alike)], np.repeat(np.arange(100), 4).tolist(), Resampling())["x"]
    narrow, wide = intervals([mean("x", alike)], range(400), Resampling())["x"]
    assert 1.6 < (high - low) / (wide - narrow) < 2.4


def test_order_and_block_change_nothing_and_the_seed_does(monkeypatch):
    how = Resampling(200)
    units = [f"image {i}" for i in range(400)]
    found = intervals([mean("x", VALUES)], units, how)
    order = np.random.default_rng(2).permutation(400)
    assert intervals([mean("x", VALUES[order])], [units[i] for i in order], how)["x"] == pytest.approx(found["x"])
    assert intervals([mean("x", VALUES)], units, Resampling(200, seed=1)) != found
    monkeypatch.setattr(bootstrap, "_AT_ONCE", 7)
    assert intervals([mean("x", VALUES)], units, how)["x"] == pytest.approx(found["x"])


def test_a_group_that_some_resamples_lack_has_an_interval_all_the_same():
    score = mean_by_group("all", VALUES, {"kind": labels(["rare" if i == 3 else "often" for i in range(400)])})
    found = intervals([score], range(400), Resampling(300))
    assert found["kind.rare"] == pytest.approx((VALUES[3], VALUES[3]))
    rest = np.arange(400) != 3
    assert score.total() == pytest.approx(
        {"all": VALUES.mean(), "kind.often": VALUES[rest].mean(), "kind.rare": VALUES[3]}
    )
    assert score.total() == pytest.approx(dict(zip(score.names, score.of_sums(score.sums.sum(axis=0)), strict=True)))
    assert all(np.isfinite(ends).all() for ends in found.values())


def test_pairing_finds_a_small_steady_difference_and_none_where_there_is_none():
    better = mean("x", VALUES + 0.01)
    found = compare([mean("x", VALUES)], [better], range(400), Resampling())["x"]
    assert found.difference == pytest.approx(0.01)
    assert found.interval == pytest.approx((0.01, 0.01))
    assert found.p_value == pytest.approx(2 / 1001)
    same = compare([better], [better], range(400), Resampling())["x"]
    assert (same.difference, same.interval, same.p_value) == (0, (0, 0), 1)
    noise = np.random.default_rng(3).normal(0, 0.3, 400)
    unsure = compare([mean("x", VALUES)], [mean("x", VALUES + noise)], range(400), Resampling())["x"]
    assert unsure.interval[0] < unsure.difference < unsure.interval[1]
    assert unsure.p_value > 0.01
