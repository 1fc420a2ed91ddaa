"""Decides on every pair: kept, or the first reason why not. Steps are in the order of `stages/select/config.py`."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from stages.base.contract import UserError
from stages.base.tombstones import Tombstones
from stages.index.reader import Index
from stages.select.config import Near, SelectConfig
from stages.select.contamination import drop_leaks, save_matches
from stages.select.copies import candidates, drop_exact_copies
from stages.select.decision import KEPT, Decision
from stages.select.duplicates import check_survivor
from stages.select.forgotten import forgotten_pairs
from stages.select.fractions import apply_fractions
from stages.select.job import Passes
from stages.select.mixture import apply_caps_and_mixture, check_mixture
from stages.select.near import drop_near_copies
from stages.select.rules import (
    Check,
    column_checks,
    failing,
    image_checks,
    numeric_values,
    owner,
    pair_checks,
    verify,
)


def decide(passes: Passes, tombstones: Tombstones | None = None) -> None:
    """Apply the selection to every range; afterwards `passes.read` gives the finished decisions.

    `tombstones` name what was removed by `pairmill forget`. Raises UserError for a rule on a column that was not
    measured, a hash that the index does not cover, and a mixture that does not fit the sources.
    """
    job = passes.job
    selection = job.config.selection
    check(job.index, job.config)
    save_matches(job.index, selection.contamination, job.folder)
    passes.change(_local, passes.tasks.share(tombstones or Tombstones()))
    apply_fractions(passes)
    if selection.contamination.enabled:
        passes.change(drop_leaks)
    rule = selection.duplicates
    if rule.exact or rule.near is not None:
        exact, near, edges = np.sum([(0, 0, 0), *passes.read(candidates)], axis=0).tolist()
        if exact:
            drop_exact_copies(passes, exact)
        if rule.near is not None and near:
            drop_near_copies(passes, rule.near, near, edges)
    apply_caps_and_mixture(passes)


def check(index: Index, config: SelectConfig) -> None:
    """Raise UserError for whatever of a selection does not fit an index, as far as its tables' columns show it."""
    selection = config.selection
    check_mixture(index.sources, selection.mixture)
    if selection.contamination.enabled:
        _require_searched(index, selection.contamination.near, "contamination")
    _require_searched(index, selection.duplicates.near, "duplicates")
    if not index.ranges:
        return
    images, pairs = index.images(0), index.pairs(0)  # all ranges have the same columns
    _checks(config, images, pairs)
    for column in sorted(selection.rules.fractions):
        table, _ = owner(column, f"fractions.{column}", images, pairs)
        numeric_values(table.slice(0, 0), column)
    if selection.duplicates.exact or selection.duplicates.near is not None:
        check_survivor(images.schema, selection.duplicates.survivor)


def _require_searched(index: Index, near: Near | None, key: str) -> None:
    """Raise UserError if the index was not searched up to the radius of a rule."""
    if near is not None and index.radius.get(near.hash, -1) < near.radius:
        raise UserError(
            f"selection.{key}.near: the index was not searched by {near.hash} up to {near.radius} bits; rebuild it "
            "with `pairmill run index`"
        )


def _checks(config: SelectConfig, images: pa.Table, pairs: pa.Table) -> tuple[list[Check], list[Check]]:
    """The enabled bounds on images and on pairs. Raises UserError for one on a column that was not measured."""
    rules = config.selection.rules
    on_images, on_pairs = column_checks(rules, images, pairs)
    on_images, on_pairs = [*image_checks(rules), *on_images], [*pair_checks(rules), *on_pairs]
    verify(on_images, images, images, pairs)
    verify(on_pairs, pairs, images, pairs)
    return on_images, on_pairs


def _local(decision: Decision, tombstones: Tombstones) -> None:
    """What a range decides by itself: what is forgotten, was not fetched, or is outside a bound."""
    if tombstones:
        decision.drop_pairs(np.flatnonzero(forgotten_pairs(decision, tombstones)), "forgotten")
    _downloads(decision)
    _bounds(decision)


def _downloads(decision: Decision) -> None:
    status = decision.images["status"].cast(pa.string()).combine_chunks().dictionary_encode()
    numbers = status.indices.to_numpy()
    names = status.dictionary.to_pylist()
    for name in sorted(names):
        if name != "success":
            decision.drop_images(np.flatnonzero(numbers == names.index(name)), f"download.{name}")


def _bounds(decision: Decision) -> None:
    images, pairs = decision.images, decision.pairs
    on_images, on_pairs = _checks(decision.config, images, pairs)
    broken = ~_true(images["decoded"])
    decision.drop_images(np.flatnonzero(broken & (decision.image_code == KEPT)), "rule.undecodable")
    for bound in on_images:
        decision.drop_images(np.flatnonzero(failing(bound, images) & (decision.image_code == KEPT)), bound.reason)
    for bound in on_pairs:
        failed = failing(bound, pairs, decision.image_only)
        decision.drop_pairs(np.flatnonzero(failed & (decision.code == KEPT)), bound.reason)


def _true(column: pa.ChunkedArray) -> NDArray[np.bool_]:
    values: NDArray[np.bool_] = pc.fill_null(column, False).to_numpy().astype(bool, copy=False)
    return values
