"""Decides on every pair: kept, or the first reason why not. Steps are in the order of `stages/select/config.py`."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from stages.base.contract import UserError
from stages.index.reader import Index
from stages.select import duplicates
from stages.select.config import Near, Portion, SelectConfig
from stages.select.contamination import leaked_images, leaked_texts
from stages.select.decision import KEPT, Decision
from stages.select.mixture import epoch_samples, repeats
from stages.select.rules import (
    below_fraction,
    column_checks,
    failing,
    image_checks,
    numeric_values,
    owner,
    pair_checks,
    verify,
    without_text,
)


def decide(index: Index, config: SelectConfig, forgotten: NDArray[np.bool_] | None = None) -> Decision:
    """Apply the selection; `forgotten` (bool per pair) marks pairs that were removed by `pairmill forget`.

    Raises UserError for a rule on a column that was not measured, a hash that the index does not cover, and a mixture
    that does not fit the sources.
    """
    decision = Decision(index, config)
    if forgotten is not None:
        decision.drop_pairs(np.flatnonzero(forgotten), "forgotten")
    _downloads(decision)
    _rules(decision)
    _fractions(decision)
    _benchmarks(decision)
    _copies(decision)
    _caps_and_mixture(decision)
    return decision


def _downloads(decision: Decision) -> None:
    status = decision.index.images["status"].cast(pa.string()).combine_chunks().dictionary_encode()
    numbers = status.indices.to_numpy()
    names = status.dictionary.to_pylist()
    # In alphabetical order, so that codes do not depend on the order of rows.
    for name in sorted(names):
        if name != "success":
            decision.drop_images(np.flatnonzero(numbers == names.index(name)), f"download.{name}")


def _rules(decision: Decision) -> None:
    images, pairs = decision.index.images, decision.index.pairs
    rules = decision.config.selection.rules
    on_images, on_pairs = column_checks(rules, images, pairs)
    on_images, on_pairs = [*image_checks(rules), *on_images], [*pair_checks(rules), *on_pairs]
    verify(on_images, images, images, pairs)
    verify(on_pairs, pairs, images, pairs)
    broken = ~_true(images["decoded"])
    decision.drop_images(np.flatnonzero(broken & (decision.image_code == KEPT)), "rule.undecodable")
    for check in on_images:
        decision.drop_images(np.flatnonzero(failing(check, images) & (decision.image_code == KEPT)), check.reason)
    image_only = decision.image_only
    for check in on_pairs:
        decision.drop_pairs(np.flatnonzero(failing(check, pairs, image_only) & (decision.code == KEPT)), check.reason)


def _true(column: pa.ChunkedArray) -> NDArray[np.bool_]:
    return pc.fill_null(column, False).to_numpy().astype(bool, copy=False)


def _fractions(decision: Decision) -> None:
    images, pairs = decision.index.images, decision.index.pairs
    rules = decision.config.selection.rules
    decoded = _true(images["decoded"])
    forgotten = decision.code == (decision.code_of("forgotten") if "forgotten" in decision.reasons else -1)
    for column in sorted(rules.fractions):
        fraction = rules.fractions[column]
        table, number = owner(column, f"fractions.{column}", images, pairs)
        values, sources = numeric_values(table, column), table["source"].to_numpy()
        if number == 0:
            open_rows = np.zeros(images.num_rows, dtype=bool)
            open_rows[decision.kept_images()] = True
            pool = decoded if fraction.of == "fetched" else open_rows
        else:
            open_rows = decision.code == KEPT
            pool = decoded[decision.image_of] & ~forgotten if fraction.of == "fetched" else open_rows
        fails = below_fraction(values, pool, sources, fraction)
        if rules.missing == "drop":
            missing = np.isnan(values)
            if number == 1 and (image_only := decision.image_only) is not None:
                missing &= ~without_text(column, table, image_only)
            fails |= missing
        rows = np.flatnonzero(fails & open_rows)
        reason = f"rule.{'top' if fraction.top is not None else 'bottom'}_{column}"
        if number == 0:
            decision.drop_images(rows, reason)
        else:
            decision.drop_pairs(rows, reason)


def _benchmarks(decision: Decision) -> None:
    rule = decision.config.selection.contamination
    if not rule.enabled:
        return
    _require_searched(decision.index, rule.near, "contamination")
    for leak in leaked_images(decision.index, rule):
        rows = decision.kept_images()
        rows = rows[leak.match[rows] >= 0]
        match = leak.match[rows]
        decision.benchmark_file[rows] = leak.file.take(pa.array(match)).to_pylist()
        decision.benchmark_kind[rows] = leak.kind[match]
        decision.benchmark_distance[rows] = leak.distance[match]
        decision.drop_images(rows, f"benchmark.{leak.benchmark}")
    if rule.min_text_overlap is not None:
        for name, pairs, overlap in leaked_texts(decision.index, rule.min_text_overlap):
            fresh = decision.code[pairs] == KEPT
            decision.text_overlap.update(zip(pairs[fresh].tolist(), overlap[fresh].tolist(), strict=True))
            decision.drop_pairs(pairs[fresh], f"benchmark_text.{name}")


def _require_searched(index: Index, near: Near | None, key: str) -> None:
    """Raise UserError if the index was not searched up to the radius of a rule."""
    if near is not None and index.radius.get(near.hash, -1) < near.radius:
        raise UserError(
            f"selection.{key}.near: the index was not searched by {near.hash} up to {near.radius} bits; rebuild it "
            "with `pairmill run index`"
        )


def _copies(decision: Decision) -> None:
    rule = decision.config.selection.duplicates
    if not rule.exact and rule.near is None:
        return
    _require_searched(decision.index, rule.near, "duplicates")
    images = decision.index.images
    rows = decision.kept_images()
    image_only = decision.index.image_only
    captionless = np.array(image_only, dtype=bool)[images["source"].to_numpy()] if any(image_only) else None
    rank = duplicates.preference(images, rows, rule.survivor, captionless)
    if rule.exact:
        _drop_copies(decision, duplicates.exact_copies(images["group"].to_numpy(), rows, rank), "duplicate.exact")
    if rule.near is not None:
        rows = decision.kept_images()
        classes = decision.index.classes(rule.near.hash)
        near = decision.index.near(rule.near.hash)
        _drop_copies(decision, duplicates.near_copies(classes, near, rule.near, rows, rank), "duplicate.near")
        # The survivor of exact copies may itself be dropped for a near one: point to the image that is kept.
        final = decision.survivor[decision.survivor]
        decision.survivor = np.where((decision.survivor >= 0) & (final >= 0), final, decision.survivor)


def _drop_copies(decision: Decision, survivors: duplicates.Survivors, reason: str) -> None:
    copies = np.flatnonzero(survivors != duplicates.NONE)
    decision.survivor[copies] = survivors[copies]
    decision.drop_images(copies, reason)


def _caps_and_mixture(decision: Decision) -> None:
    """Apply caps, then the mixture to what they leave, and set how often an epoch shows each pair."""
    selection = decision.config.selection
    names, source = decision.index.sources, decision.index.pairs["source"].to_numpy()
    kept = [np.flatnonzero((source == number) & (decision.code == KEPT)) for number in range(len(names))]
    for name, most in sorted(selection.max_pairs.items()):
        if name in names:
            mine = kept[names.index(name)]
            decision.drop_pairs(mine[most:], "cap")
            kept[names.index(name)] = mine[:most]
    numbers = epoch_samples([len(rows) for rows in kept], names, selection.mixture)
    for name, rows, number in zip(names, kept, numbers, strict=True):
        epochs = selection.mixture.get(name, Portion()).epochs
        if epochs == 1 and number >= len(rows):
            decision.repeats[rows] = 1
            continue
        uids = decision.index.pairs["uid"].take(pa.array(rows)).combine_chunks()
        times = repeats(uids, epochs, number)
        decision.repeats[rows] = times
        decision.drop_pairs(rows[times == 0], "mixture")
