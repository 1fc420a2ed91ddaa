"""The verdict on every pair: kept, or the first reason why not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from stages.artifact import Artifact
from stages.contract import UserError
from stages.select import duplicates
from stages.select.benchmarks import contaminated
from stages.select.config import SelectConfig
from stages.select.rules import Check
from stages.select.tables import Tables

#: Code of a pair that is kept; its reason is the empty string.
KEPT = 0


@dataclass
class Decision:
    """Reasons by pair and by image, as codes into `reasons`."""

    tables: Tables
    reasons: list[str]
    """Code -> reason; code 0 is the empty string: kept."""
    image_of: NDArray[np.int64]
    """Per pair its row in `tables.images`, or -1 when the image was never fetched."""
    code: NDArray[np.int16]
    """Per pair."""
    image_code: NDArray[np.int16]
    """Per image the reason that drops all its pairs, or 0: it may still have lost pairs to rules on captions."""
    survivor: NDArray[np.int64]
    """Per image the row of the image whose copy it is, or -1."""
    benchmark_file: NDArray[np.object_]
    """Per image the benchmark's image that it shows, or the empty string."""

    def code_of(self, reason: str) -> int:
        """The code of a reason, which is given one when it is new."""
        if reason not in self.reasons:
            self.reasons.append(reason)
        return self.reasons.index(reason)

    def alive(self) -> NDArray[np.int64]:
        """Rows of the images with at least one pair that nothing has dropped so far."""
        return np.unique(self.image_of[(self.code == KEPT) & (self.image_of >= 0)])

    def drop_images(self, rows: NDArray[np.int64], reason: str) -> None:
        """Drop images, and with them those of their pairs that are still kept."""
        self.image_code[rows] = self.code_of(reason)
        open_pairs = (self.code == KEPT) & (self.image_of >= 0)
        self.code[open_pairs] = self.image_code[self.image_of[open_pairs]]

    def verdicts(self) -> pa.Table:
        """One row per pair, sorted by `uid`: `uid`, `image_uid`, `source`, `keep`, `reason`, `detail`."""
        pairs = self.tables.pairs
        detail = self.benchmark_file.copy()
        copies = np.flatnonzero(self.survivor >= 0)
        uids = self.tables.images["image_uid"]
        detail[copies] = uids.take(pa.array(self.survivor[copies])).to_pylist()
        # An image's detail explains its own reason only: a pair lost to a rule on its caption has none.
        own = np.flatnonzero((self.image_of >= 0) & (self.code != KEPT))
        own = own[self.code[own] == self.image_code[self.image_of[own]]]
        explained = np.full(len(self.code), "", dtype=object)
        explained[own] = detail[self.image_of[own]]
        names = pa.array(self.tables.sources or [""], pa.string())
        return pa.table(
            {
                "uid": pairs["uid"],
                "image_uid": pairs["image_uid"],
                "source": names.take(pairs["source"].combine_chunks()),
                "keep": pa.array(self.code == KEPT),
                "reason": pa.array(self.reasons, pa.string()).take(pa.array(self.code)),
                "detail": pa.array(explained, pa.string()),
            }
        )


def decide(tables: Tables, config: SelectConfig, worlds: Mapping[str, Artifact]) -> Decision:
    """Apply the selection in the order that `stages/select/config.py` states.

    Raises UserError when the inputs disagree (a pair twice, an image without an attempt or a measurement).
    """
    pairs, images = tables.pairs, tables.images
    uids = pairs["uid"].combine_chunks()
    if len(uids) > 1:
        twice = pc.equal(uids[1:], uids[:-1])
        if pc.any(twice).as_py():
            raise UserError(f"select: pair {uids[1:].filter(twice)[0]} is listed twice; ingest again")
    decision = Decision(
        tables=tables,
        reasons=[""],
        image_of=_rows(pairs["image_uid"], images["image_uid"]),
        code=np.zeros(pairs.num_rows, dtype=np.int16),
        image_code=np.zeros(images.num_rows, dtype=np.int16),
        survivor=np.full(images.num_rows, -1, dtype=np.int64),
        benchmark_file=np.full(images.num_rows, "", dtype=object),
    )
    _downloads(decision)
    _rules(decision)
    selection = config.selection
    if selection.contamination.enabled and config.benchmarks:
        rows = decision.alive()
        found = contaminated(images.take(pa.array(rows)), selection.contamination, config.benchmarks, worlds)
        for leak in found:
            fresh = pc.is_valid(leak.files).to_numpy(zero_copy_only=False) & (decision.image_code[rows] == KEPT)
            decision.benchmark_file[rows[fresh]] = leak.files.filter(pa.array(fresh)).to_pylist()
            decision.drop_images(rows[fresh], f"benchmark.{leak.benchmark}")
    _copies(decision, config)
    for source, most in sorted(selection.max_pairs.items()):
        if source in tables.sources:
            mine = pairs["source"].to_numpy() == tables.sources.index(source)
            surplus = np.flatnonzero(mine & (decision.code == KEPT))[most:]
            decision.code[surplus] = decision.code_of("cap")
    return decision


def _rows(keys: pa.ChunkedArray, among: pa.ChunkedArray) -> NDArray[np.int64]:
    found = pc.index_in(keys, value_set=among.combine_chunks())
    return pc.fill_null(found, -1).to_numpy().astype(np.int64)


def _downloads(decision: Decision) -> None:
    tables = decision.tables
    missing = np.flatnonzero(decision.image_of < 0)
    image_uids = tables.pairs["image_uid"].take(pa.array(missing))
    attempt = _rows(image_uids, tables.attempts["image_uid"])
    if (attempt < 0).any():
        uid = image_uids[int(np.flatnonzero(attempt < 0)[0])]
        raise UserError(f"select: image {uid} was never tried; run `pairmill run download` again")
    status = tables.attempts["status"].take(pa.array(attempt)).combine_chunks().dictionary_encode()
    names = status.dictionary.to_pylist()
    if "success" in names:
        lost = image_uids[int(np.flatnonzero(status.indices.to_numpy() == names.index("success"))[0])]
        raise UserError(f"select: image {lost} was fetched but not measured; run `pairmill run signals` again")
    # In alphabetical order, so that codes do not depend on the order of rows.
    codes = {name: decision.code_of(f"download.{name}") for name in sorted(names)}
    lookup = np.array([codes[name] for name in names] or [0], dtype=np.int16)
    decision.code[missing] = lookup[status.indices.to_numpy()]


def _rules(decision: Decision) -> None:
    tables = decision.tables
    failed = tables.images["failed"].to_numpy()
    for number, check in enumerate(tables.image_checks):
        rows = np.flatnonzero(failed == number)
        if len(rows):
            decision.drop_images(rows, check.reason)
    open_pairs = np.flatnonzero(decision.code == KEPT)
    said = _rows(tables.pairs["uid"].take(pa.array(open_pairs)), tables.captions["uid"])
    if (said < 0).any():
        uid = tables.pairs["uid"][int(open_pairs[np.flatnonzero(said < 0)[0]])]
        raise UserError(f"select: the caption of {uid} was not measured; run `pairmill run signals` again")
    failed = tables.captions["failed"].to_numpy()[said]
    checks: list[Check] = tables.pair_checks
    for number, check in enumerate(checks):
        rows = open_pairs[failed == number]
        if len(rows):
            decision.code[rows] = decision.code_of(check.reason)


def _copies(decision: Decision, config: SelectConfig) -> None:
    rule = config.selection.duplicates
    images = decision.tables.images
    if rule.exact:
        rows = decision.alive()
        pool = images.take(pa.array(rows))
        survivors = duplicates.exact_copies(pool, duplicates.best_first(pool))
        _fall(decision, rows, survivors, "duplicate.exact")
    if rule.near is not None:
        rows = decision.alive()
        pool = images.take(pa.array(rows))
        survivors = duplicates.near_copies(pool, duplicates.best_first(pool), rule.near)
        _fall(decision, rows, survivors, "duplicate.near")
        # The survivor of exact copies may itself have fallen to a near one: name the picture that is really there.
        final = decision.survivor[decision.survivor]
        decision.survivor = np.where((decision.survivor >= 0) & (final >= 0), final, decision.survivor)


def _fall(decision: Decision, rows: NDArray[np.int64], survivors: duplicates.Survivors, reason: str) -> None:
    fallen = np.flatnonzero(survivors != duplicates.NONE)
    if len(fallen):
        decision.survivor[rows[fallen]] = rows[survivors[fallen]]
        decision.drop_images(rows[fallen], reason)
