"""Shares by rank: the best part of all images or pairs by a column, exactly, over all ranges."""

from __future__ import annotations

from fractions import Fraction as Exact
from functools import cache

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from stages.select.bounds import Fraction
from stages.select.decision import KEPT, Decision, uid_words
from stages.select.job import Passes
from stages.select.ranking import Ranked, Threshold, ascending, chosen, first_of_groups
from stages.select.rules import numeric_values, owner, without_text


def apply_fractions(passes: Passes) -> None:
    """Apply `rules.fractions` one after the other, in alphabetical order of the columns.

    Of n rows with a value, floor(share x n) are kept: those with the best values, and among equal values those with the
    smallest uids.
    """
    fractions = passes.job.config.selection.rules.fractions
    for column in sorted(fractions):
        fraction = fractions[column]
        share = Exact(str(fraction.top if fraction.top is not None else fraction.bottom))
        thresholds = first_of_groups(passes, _ranked, (column, fraction), _number_of(share))
        passes.change(_drop, column, fraction, thresholds)


def _number_of(share: Exact):  # type: ignore[no-untyped-def]
    # Exactly: 0.3 x 10 is 3, which it is not in floating point.
    return lambda group, rows: int(share * rows)


def _ranked(decision: Decision, column: str, fraction: Fraction) -> Ranked:
    """The rows of which the fraction is a share, by value and uid; groups are sources or all together."""
    table, number = owner(column, f"fractions.{column}", decision.images, decision.pairs)
    values = numeric_values(table, column)
    if fraction.of == "passed":
        pool = _open(decision, number)
    else:
        pool = pc.fill_null(decision.images["decoded"], False).to_numpy().astype(bool, copy=False)
        if number == 1:
            pool = pool[decision.image_of] & (decision.code != decision.has("forgotten"))
    rows = np.flatnonzero(pool & ~np.isnan(values))
    sources = decision.source if number == 1 else decision.image_source
    group = sources[rows] if fraction.within == "source" else np.zeros(len(rows), dtype=np.int16)
    uids = cache(lambda: uid_words(table["uid" if number == 1 else "image_uid"]))
    value = cache(lambda: ascending(values[rows]) if fraction.top is None else ~ascending(values[rows]))
    return Ranked(rows, group, (value, lambda: uids()[0][rows], lambda: uids()[1][rows]))


def _open(decision: Decision, number: int) -> NDArray[np.bool_]:
    """What is kept so far, of images (0) or pairs (1)."""
    return decision.kept_images if number == 0 else decision.code == KEPT


def _drop(decision: Decision, column: str, fraction: Fraction, thresholds: dict[int, Threshold]) -> None:
    table, number = owner(column, f"fractions.{column}", decision.images, decision.pairs)
    ranked = _ranked(decision, column, fraction)
    fails = np.zeros(table.num_rows, dtype=bool)
    fails[ranked.rows[~chosen(ranked, thresholds)]] = True
    if decision.config.selection.rules.missing == "drop":
        missing = np.isnan(numeric_values(table, column))
        if number == 1 and decision.image_only is not None:
            missing &= ~without_text(column, table, decision.image_only)
        fails |= missing
    rows = np.flatnonzero(fails & _open(decision, number))
    reason = f"rule.{'top' if fraction.top is not None else 'bottom'}_{column}"
    if number == 0:
        decision.drop_images(rows, reason)
    else:
        decision.drop_pairs(rows, reason)
