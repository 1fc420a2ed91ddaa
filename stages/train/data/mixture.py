"""Sources in exact shares: from a position of the run to a source and a position in that source.

The shares become whole numbers over a short period, and within it sources take turns by Tijdeman's rule for the
chairman assignment problem (R. Tijdeman, *The chairman assignment problem*, Discrete Mathematics 32, 1980): after any
number of positions each source has had less than one sample more or less than its share. At the end of the period the
difference is a whole number and hence 0, so the period repeats: *any* window of one period holds exactly the shares.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from stages.base.contract import UserError

LONGEST = 10_000
"""Positions in a period at most; shares that no shorter period can give exactly are rounded to 1 / LONGEST."""
_EXACT = 1e-9


class Mixture:
    """Weights honoured exactly over any window of `period` positions, and to less than 2 samples over any other."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        """Raises UserError for weights that are not valid. A source of weight 0 is never taken."""
        self.shares = whole_shares(weights)
        """Samples of each source in a period, for weights above 0, in the order given."""
        self.sources = list(self.shares)
        amounts = np.array(list(self.shares.values()), dtype=np.int64)
        self.period = int(amounts.sum())
        self._source = _assign(amounts)
        subsets_by_source = np.argsort(self._source, kind="stable")
        self._before = np.empty(self.period, dtype=np.int64)
        self._before[subsets_by_source] = np.concatenate([np.arange(amount) for amount in amounts])
        """Number of earlier positions of the same source in the period, [period]."""
        self._amounts = amounts

    def __call__(self, positions: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(number in `sources`, position in that source), each int64 [n], of positions of the run, int64 [n]."""
        periods, at = np.divmod(positions, self.period)
        source = self._source[at]
        return source, periods * self._amounts[source] + self._before[at]


def whole_shares(weights: Mapping[str, float]) -> dict[str, int]:
    """Weights as whole numbers over the shortest period up to `LONGEST` that holds their proportions (to 1e-9).

    Where none does they are rounded over `LONGEST` by largest remainder, and no weight above 0 becomes 0.
    """
    for source, weight in weights.items():
        if not (math.isfinite(weight) and weight >= 0):
            raise UserError(f"mixture: {source} has weight {weight}; give a number of 0 or more")
    used = {source: weight for source, weight in weights.items() if weight > 0}
    if not used:
        raise UserError("mixture: no source has a weight above 0; give at least one")
    if len(used) > LONGEST:
        raise UserError(f"mixture: {len(used)} sources, at most {LONGEST} can be mixed; merge some")
    largest = max(used.values())
    relative = np.array([weight / largest for weight in used.values()])
    exact = relative / relative.sum()
    for period in range(len(used), LONGEST + 1):
        amounts = np.rint(exact * period)
        if np.abs(exact * period - amounts).max() <= _EXACT and amounts.min() >= 1:
            return dict(zip(used, amounts.astype(int).tolist(), strict=True))
    amounts = np.maximum(1, np.floor(exact * LONGEST)).astype(np.int64)
    while (missing := LONGEST - int(amounts.sum())) != 0:
        # Too many only where tiny shares were raised to 1: one that lost least by rounding down gives.
        owed = exact * LONGEST - amounts
        if missing > 0:
            amounts[np.argsort(-owed, kind="stable")[:missing]] += 1
        else:
            amounts[np.argsort(np.where(amounts > 1, owed, np.inf), kind="stable")[0]] -= 1
    return dict(zip(used, amounts.tolist(), strict=True))


def _assign(amounts: NDArray[np.int64]) -> NDArray[np.int64]:
    """The source of each position in a period, int64 [sum of amounts]."""
    period, sources = int(amounts.sum()), len(amounts)
    if sources == 1:
        return np.zeros(period, dtype=np.int64)
    # Tijdeman's conditions times period and 2 * sources - 2, in whole numbers. Urgency is a fraction with a denominator
    # up to 10^4: different ones differ by far more than the rounding of one division, equal ones round alike.
    slack = 2 * sources - 2
    owed = np.zeros(sources, dtype=np.int64)
    assigned = np.empty(period, dtype=np.int64)
    for position in range(period):
        owed += amounts
        deadline = (period * (slack - 1) - slack * owed) / amounts
        assigned[position] = chosen = np.where(slack * owed >= period, deadline, np.inf).argmin()
        owed[chosen] -= period
    return assigned
