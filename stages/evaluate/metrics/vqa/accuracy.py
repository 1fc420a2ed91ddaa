"""VQA accuracy of many questions at once, in both modes."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import chain, count
from typing import Literal, Protocol

import numpy as np

from stages.evaluate.metrics.vqa.normalize import clean, normalize

Mode = Literal["official", "normalized"]
MODES: tuple[Mode, ...] = ("official", "normalized")


def accuracies(
    predictions: Sequence[str], answers: Sequence[Sequence[str]], modes: Sequence[Mode] = MODES
) -> dict[Mode, np.ndarray]:
    """Mode -> accuracy in [0, 1] of each question, float64 [questions].

    The mean over all subsets that leave one annotator out of min(1, matches / 3). `official` normalises only where
    the annotators differ (so "Yes" against ten "yes" scores 0); `normalized` always. Annotators are identified by
    position; the official code compares whole records, which is the same as long as they carry their `answer_id`.
    Raises ValueError for a question without answers, or when the two lists differ in length.
    """
    if len(predictions) != len(answers):
        raise ValueError(f"{len(predictions)} predictions for {len(answers)} questions")
    counts = np.fromiter(map(len, answers), np.int32, len(answers))
    if not counts.all():
        raise ValueError(f"question number {int(np.argmin(counts))} has no answers; it cannot be scored")
    if not len(counts):
        return {mode: np.zeros(0) for mode in modes}
    # Each distinct text is cleaned and normalised once; everything else is done with numbers.
    texts, numbers = _numbered([*chain.from_iterable(answers), *predictions])
    cleaned = list(map(clean, texts))
    if cleaned != texts:
        cleaned, number = _numbered(cleaned)
        numbers = number[numbers]
    total = int(counts.sum())
    there = np.arange(counts.max()) < counts[:, None]
    # [questions, annotators], padded with a number that no text has
    given = np.full(there.shape, len(cleaned), dtype=np.int32)
    given[there] = numbers[:total]
    predicted = numbers[total:]
    same = ((given == given[:, :1]) | ~there).all(axis=1)
    found = {}
    for mode in modes:
        as_written = same if mode == "official" else np.zeros_like(same)
        matches = np.count_nonzero(given == predicted[:, None], axis=1)
        number = _normalized(cleaned, given[~as_written], predicted[~as_written])
        matches[~as_written] = np.count_nonzero(
            number[given[~as_written]] == number[predicted[~as_written], None], axis=1
        )
        # Leaving out an annotator who matches leaves one match less.
        left_out = np.minimum(1.0, np.maximum(matches - 1, 0) / 3), np.minimum(1.0, matches / 3)
        found[mode] = (matches * left_out[0] + (counts - matches) * left_out[1]) / counts
    return found


def _normalized(texts: Sequence[str], *used: np.ndarray) -> np.ndarray:
    """For each text that is used, the number of its normalised form, int32 [texts + 1]; the last is of no text."""
    needed = np.zeros(len(texts) + 1, dtype=bool)
    for numbers in used:
        needed[numbers] = True
    chosen = np.flatnonzero(needed[:-1])
    found = np.full(len(needed), -1, dtype=np.int32)
    found[chosen] = _numbered([normalize(texts[i]) for i in chosen.tolist()])[1]
    return found


def _numbered(texts: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """The distinct texts, and the number of each text among them."""
    numbers: defaultdict[str, int] = defaultdict(count().__next__)
    found = np.fromiter(map(numbers.__getitem__, texts), np.int32, len(texts))
    return list(numbers), found


class Annotated(Protocol):
    """One question's annotation."""

    @property
    def answers(self) -> Sequence[str]:
        """The annotators' answers."""

    @property
    def multiple_choice_answer(self) -> str | None:
        """The most frequent of them, where the file has it."""


def majority_answer(annotations: Sequence[Annotated]) -> str:
    """The answer given most often over all questions; of several equally frequent, the first by code point.

    Raises ValueError when there are no annotations.
    """
    counts: Counter[str] = Counter()
    for annotation in annotations:
        agreed = annotation.multiple_choice_answer
        counts.update(annotation.answers if agreed is None else [agreed])
    if not counts:
        raise ValueError("no annotations to take a majority answer from")
    return min(counts, key=lambda answer: (-counts[answer], answer))
