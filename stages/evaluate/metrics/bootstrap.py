"""Bootstrap intervals (Efron & Tibshirani 1993) of any score that is a function of sums over samples.

The unit drawn with replacement is the image with all its questions or captions: answers about one image are not
independent, and drawing them one by one makes intervals too narrow.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from stages.base.contract import UserError
from stages.evaluate.metrics.additive import Additive

_AT_ONCE = 64  # resamples whose counts are in memory at once; does not change the result


@dataclass(frozen=True)
class Resampling:
    """How intervals are computed; part of a result's protocol."""

    resamples: int = 1000
    seed: int = 0
    level: float = 0.95
    """Share of the bootstrap distribution between the two ends of an interval."""


@dataclass(frozen=True)
class Difference:
    """Second minus first, of the same samples scored by two systems."""

    first: float
    second: float
    difference: float
    interval: tuple[float, float]
    """Percentile interval of the difference under paired resampling."""
    p_value: float
    """Two-sided: twice the smaller share of resamples on either side of zero, counting the observed one; at most 1."""


def unit_numbers(units: Sequence[Hashable]) -> tuple[np.ndarray, int]:
    """Each sample's unit as a number, int64 [n], and the number of units.

    Numbers follow the units' own order, so the draws do not depend on the order of the samples.
    """
    distinct = sorted(set(units), key=lambda unit: (isinstance(unit, str), unit))
    number = {unit: i for i, unit in enumerate(distinct)}
    return np.fromiter((number[unit] for unit in units), np.int64, len(units)), len(distinct)


def intervals(
    scored: Sequence[Additive], units: Sequence[Hashable], resampling: Resampling
) -> dict[str, tuple[float, float]]:
    """Score's name -> percentile interval.

    Resamples without a score (a question type that was not drawn) are left out of its interval; raises UserError for a
    score that no resample has.
    """
    drawn = _drawn(scored, units, resampling)
    names = [name for score in scored for name in score.names]
    return {name: _percentiles(name, drawn[:, i], resampling.level) for i, name in enumerate(names)}


def compare(
    first: Sequence[Additive], second: Sequence[Additive], units: Sequence[Hashable], resampling: Resampling
) -> dict[str, Difference]:
    """Score's name -> difference of two systems on the same samples in the same order, by paired resampling.

    Raises UserError for a score that no resample has.
    """
    one, two = _drawn(first, units, resampling), _drawn(second, units, resampling)
    found = {}
    position = 0
    for a, b in zip(first, second, strict=True):
        before, after = a.total(), b.total()
        for name in a.names:
            gaps = two[:, position] - one[:, position]
            position += 1
            gap = after[name] - before[name]
            interval = _percentiles(name, gaps, resampling.level)
            known = gaps[~np.isnan(gaps)]
            sides = min(np.count_nonzero(known <= 0), np.count_nonzero(known >= 0))
            p_value = min(1.0, 2 * (sides + 1) / (len(known) + 1))
            found[name] = Difference(before[name], after[name], gap, interval, p_value)
    return found


def _percentiles(name: str, values: np.ndarray, level: float) -> tuple[float, float]:
    if np.isnan(values).all():
        raise UserError(f"{name}: no sample of it was drawn in {len(values):,} resamples of the bootstrap; take more")
    tail = 100 * (1 - level) / 2
    low, high = np.nanpercentile(values, [tail, 100 - tail])
    return float(low), float(high)


def _drawn(scored: Sequence[Additive], units: Sequence[Hashable], resampling: Resampling) -> np.ndarray:
    """The scores of every resample, float64 [resamples, names of all scores]."""
    number, count = unit_numbers(units)
    if not scored:
        return np.zeros((resampling.resamples, 0))
    by_unit = [_by_unit(score.sums, number, count) for score in scored]
    blocks = []
    for counts in _counts(count, resampling):
        of_scores = [score.of_sums(counts @ sums) for score, sums in zip(scored, by_unit, strict=True)]
        blocks.append(np.concatenate(of_scores, axis=1))
    return np.concatenate(blocks)


def _by_unit(sums: np.ndarray, number: np.ndarray, count: int) -> np.ndarray:
    columns = [np.bincount(number, weights=sums[:, k], minlength=count) for k in range(sums.shape[1])]
    return np.stack(columns, axis=1)


def _counts(units: int, resampling: Resampling) -> Iterator[np.ndarray]:
    """How often each unit is drawn, float64 [up to _AT_ONCE, units]: the draws do not depend on the block's size."""
    generator = np.random.default_rng(resampling.seed)
    for first in range(0, resampling.resamples, _AT_ONCE):
        rows = min(_AT_ONCE, resampling.resamples - first)
        yield np.stack([np.bincount(generator.integers(0, units, units), minlength=units) for _ in range(rows)]).astype(
            np.float64
        )
