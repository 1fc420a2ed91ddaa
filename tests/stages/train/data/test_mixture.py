"""Mixture weights: exact over any window of a period, and never off by more than a sample or two elsewhere."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.base.contract import UserError
from stages.train.data.mixture import LONGEST, Mixture, whole_shares

whole = st.lists(st.integers(1, 40), min_size=1, max_size=9).map(lambda a: {f"s{i}": float(w) for i, w in enumerate(a)})
floats = st.dictionaries(st.sampled_from("abcdef"), st.floats(1e-3, 1e3), min_size=1)


def taken(mixture: Mixture, positions: np.ndarray) -> np.ndarray:
    """[positions + 1, sources]: samples of each source before a position of the range."""
    sources = mixture(positions)[0]
    each = sources[:, None] == np.arange(len(mixture.sources))
    return np.concatenate([np.zeros((1, len(mixture.sources)), int), each.cumsum(axis=0)])


@settings(deadline=None, max_examples=50)
@given(st.one_of(whole, floats), st.integers(0, 10**12), st.data())
def test_any_window_holds_the_shares_exactly_and_any_other_to_less_than_two_samples(
    weights: Mapping[str, float], start: int, data: st.DataObject
) -> None:
    mixture = Mixture(weights)
    amounts = np.array(list(mixture.shares.values()))
    length = mixture.period
    before = taken(mixture, np.arange(start, start + 2 * length))
    assert (before[length:] - before[:-length] == amounts).all()  # every window of a period, anywhere
    steps = np.arange(2 * length + 1)[:, None]
    run = taken(mixture, np.arange(2 * length))
    assert (np.abs(run * length - steps * amounts) < length).all()  # every beginning: less than one sample
    first = data.draw(st.integers(0, 2 * length))
    off = np.abs((run[first:] - run[first]) * length - np.arange(2 * length + 1 - first)[:, None] * amounts)
    assert (off < 2 * length).all()


@settings(deadline=None, max_examples=30)
@given(whole, st.integers(0, 10**6))
def test_each_source_is_taken_place_after_place(weights: Mapping[str, float], start: int) -> None:
    mixture = Mixture(weights)
    sources, places = mixture(np.arange(start, start + 500))
    for number, source in enumerate(mixture.sources):
        own = places[sources == number]
        assert (np.diff(own) == 1).all()
        assert not len(own) or abs(own[0] - start * mixture.shares[source] / mixture.period) <= 1
    assert mixture(np.zeros(1, dtype=np.int64))[1].tolist() == [0]


@settings(deadline=None, max_examples=50)
@given(floats)
def test_shares_are_rounded_by_less_than_a_ten_thousandth_and_none_vanishes(weights: Mapping[str, float]) -> None:
    shares = whole_shares(weights)
    assert sum(shares.values()) <= LONGEST
    total = sum(weights.values())
    for source, weight in weights.items():
        assert shares[source] >= 1
        assert abs(shares[source] / sum(shares.values()) - weight / total) < max(1, len(weights) - 1) / LONGEST


def test_simple_weights_have_short_periods_and_weight_0_is_left_out() -> None:
    assert whole_shares({"a": 0.7, "b": 0.3, "c": 0}) == {"a": 7, "b": 3}
    assert whole_shares({"a": 1, "b": 1, "c": 1}) == {"a": 1, "b": 1, "c": 1}
    assert whole_shares({"a": 0.1 + 0.2, "b": 0.1}) == {"a": 3, "b": 1}
    assert whole_shares({"a": 1e-9, "b": 1.0}) == {"a": 1, "b": LONGEST - 1}


@pytest.mark.parametrize("weights", [{}, {"a": 0.0}, {"a": -1.0, "b": 2.0}, {"a": float("nan")}, {"a": float("inf")}])
def test_weights_that_are_no_shares_are_refused(weights: Mapping[str, float]) -> None:
    with pytest.raises(UserError, match="mixture"):
        Mixture(weights)
