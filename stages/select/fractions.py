"""Thresholds by rank: which rows are in the best share of a column."""

from __future__ import annotations

from fractions import Fraction as Exact

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stages.base.contract import UserError
from stages.select.bounds import Fraction


def values_of(table: pa.Table, column: str) -> NDArray[np.float64]:
    """A numeric column as float64, NaN where it has no value. Raises UserError for any other column."""
    kind = table[column].type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise UserError(f"selection.rules.fractions.{column}: the column holds {kind}, which has no rank")
    return table[column].cast(pa.float64()).to_numpy()


def outside(
    values: NDArray[np.float64],
    pool: NDArray[np.bool_],
    sources: NDArray[np.int16],
    fraction: Fraction,
) -> NDArray[np.bool_]:
    """Rows of the pool that have a value but are not in the share asked for.

    Rows are in order of their uids. Of n rows with a value, floor(share x n) are in it: those with the best values, and
    of equal ones those that come first.
    """
    valued = pool & ~np.isnan(values)
    rows = np.flatnonzero(valued)
    dropped = np.zeros(len(values), dtype=bool)
    groups = [rows] if fraction.within == "all" else [rows[sources[rows] == n] for n in np.unique(sources[rows])]
    share = fraction.top if fraction.top is not None else fraction.bottom
    for group in groups:
        count = int(Exact(str(share)) * len(group))  # exactly: 0.3 x 10 is 3, which it is not in floating point
        order = np.argsort(-values[group] if fraction.top is not None else values[group], kind="stable")
        dropped[group[order[count:]]] = True
    return dropped
