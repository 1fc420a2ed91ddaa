"""Exact copies over all ranges: every range offers the best of its images with the same pixels, and is told the best.

Only images that the index marks as having copies take part. A range offers one image per group, so a placeholder that
occurs a million times costs a row per range.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stages.base.exchange import Exchange
from stages.base.tasks import done
from stages.base.uids import UID
from stages.select.decision import KEPT, Decision, uid_values, uid_words
from stages.select.duplicates import order_of, preference
from stages.select.job import Job, Passes, scattered


@dataclass(frozen=True)
class Candidates:
    """Images that are in competition with others of the same label."""

    label: NDArray[np.int64]
    row: NDArray[np.int64]
    """Global row of each."""
    keys: NDArray[np.float64]
    """[n, keys], of :func:`stages.select.duplicates.preference`."""
    uid: pa.Array

    @staticmethod
    def of(decision: Decision, rows: NDArray[np.int64], label: NDArray[np.int64]) -> Candidates:
        """Images of a range by their local rows."""
        rule = decision.config.selection.duplicates
        keys = preference(decision.images, rows, rule.survivor, decision.index.image_only)
        uids = decision.images["image_uid"].combine_chunks().take(pa.array(rows))
        return Candidates(label, rows + decision.range.first_image, keys, uids)

    @staticmethod
    def from_table(table: pa.Table) -> Candidates:
        """The reverse of :meth:`table`."""
        keys = [table[name].to_numpy() for name in table.column_names if name.startswith("key")]
        stacked = np.stack(keys, axis=1) if keys else np.empty((table.num_rows, 0))
        return Candidates(table["label"].to_numpy(), table["row"].to_numpy(), stacked, table["uid"].combine_chunks())

    def table(self) -> pa.Table:
        """Columns `label`, `row`, one per key, `uid`."""
        keys = {f"key{n}": pa.array(column) for n, column in enumerate(self.keys.T)}
        return pa.table({"label": self.label, "row": self.row, **keys, "uid": self.uid})

    def take(self, places: NDArray[np.int64]) -> Candidates:
        """Some of them."""
        return Candidates(self.label[places], self.row[places], self.keys[places], self.uid.take(pa.array(places)))

    def order(self, by_label: bool = True) -> NDArray[np.int64]:
        """Places in order of preference, of each label together or over all."""
        return order_of(self.keys, uid_words(pa.chunked_array([self.uid], UID)), *([self.label] if by_label else []))

    def best(self) -> Candidates:
        """The best of each label, in order of the labels."""
        order = self.order()
        label = self.label[order]
        return self.take(order[np.flatnonzero(np.concatenate([[True], label[1:] != label[:-1]])[: len(label)])])


ANSWER = pa.schema([("label", pa.int64()), ("row", pa.int64()), ("uid", UID)])
"""The survivor of a label: its global row and uid."""


def drop_exact_copies(passes: Passes, candidates: int) -> None:
    """Drop all but the best of the images with equal decoded pixels; `candidates` is the number that has copies.

    Equal bytes decode to equal pixels, so comparing pixels finds both.
    """
    job = passes.job
    offers = job.exchange("exact-offers", job.buckets(candidates))
    answers = job.exchange("exact-answers", passes.ranges)
    done(passes.read(_offer, offers))
    done(passes.buckets(_settle, offers.buckets, offers, answers))
    passes.change(_drop, answers)
    passes.clear("exact-offers", "exact-answers")


def with_copies(decision: Decision) -> NDArray[np.int64]:
    """Rows of the images that are kept and have copies, kept or not."""
    return np.flatnonzero(decision.kept_images & decision.images["copies"].to_numpy().astype(bool, copy=False))


def _offer(decision: Decision, offers: Exchange) -> None:
    rows = with_copies(decision)
    best = Candidates.of(decision, rows, decision.images["group"].to_numpy()[rows]).best()
    offers.write(decision.number, best.table(), scattered(best.label, offers.buckets))


def _settle(job: Job, bucket: int, offers: Exchange, answers: Exchange) -> None:
    offered = Candidates.from_table(offers.read(bucket))
    answer(job, bucket, offered.label, job.index.range_of(offered.row), offered.best(), answers)


def answer(
    job: Job, task: int, label: NDArray[np.int64], range: NDArray[np.int64], best: Candidates, answers: Exchange
) -> None:
    """Send to ranges the survivors of labels: of each `label` the one of `best` (one per label, in their order)."""
    place = np.searchsorted(best.label, label)
    rows = pa.array(best.row).take(pa.array(place))
    table = pa.table([pa.array(label), rows, best.uid.take(pa.array(place))], schema=ANSWER)
    answers.write(task, table, range)


class Answers:
    """What a range was told: label -> survivor."""

    def __init__(self, table: pa.Table) -> None:
        label = table["label"].to_numpy()
        order = np.argsort(label)
        self._label = label[order]
        self._row = table["row"].to_numpy()[order]
        self._uid = uid_values(table["uid"])[order]

    def of(self, label: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.void]]:
        """Global row and uid of each label's survivor."""
        place = np.searchsorted(self._label, label)
        assert np.array_equal(self._label[place], label), "a label without an answer"
        return self._row[place], self._uid[place]


def _drop(decision: Decision, answers: Exchange) -> None:
    rows = with_copies(decision)
    if not len(rows):
        return
    survivor, uid = Answers(answers.read(decision.number)).of(decision.images["group"].to_numpy()[rows])
    copy = survivor != rows + decision.range.first_image
    decision.drop_copies(rows[copy], survivor[copy], uid[copy], "duplicate.exact")


def candidates(decision: Decision) -> tuple[int, int, int]:
    """How many kept images may be exact copies and near copies, and how many near pairs the index lists."""
    rule = decision.config.selection.duplicates
    exact = len(with_copies(decision)) if rule.exact else 0
    if rule.near is None:
        return exact, 0, 0
    similar = decision.images[f"similar_{rule.near.hash}"].to_numpy().astype(bool, copy=False)
    near = int((decision.kept_images & similar).sum())
    return exact, near, decision.index.near(rule.near.hash, decision.number).num_rows


__all__ = ["ANSWER", "KEPT", "Answers", "Candidates", "answer", "candidates", "drop_exact_copies"]
