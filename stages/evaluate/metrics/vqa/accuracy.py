"""VQA accuracy of many questions at once, in both modes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import chain
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
    the annotators differ (so "Yes" against ten "yes" scores 0); `normalized` always. Annotators are told apart by their
    position; the official code compares whole records, which is the same as long as they carry their `answer_id`.
    Raises ValueError for a question without answers, or when the two lists differ in length.
    """
    if len(predictions) != len(answers):
        raise ValueError(f"{len(predictions)} predictions for {len(answers)} questions")
    counts = np.fromiter(map(len, answers), np.int64, len(answers))
    if not counts.all():
        raise ValueError(f"question number {int(np.argmin(counts))} has no answers; it cannot be scored")
    if not len(counts):
        return {mode: np.zeros(0) for mode in modes}
    starts = np.cumsum(counts) - counts
    question = np.repeat(np.arange(len(counts)), counts)
    # Each distinct text is cleaned and normalised once; everything else is done with numbers.
    texts, said = _numbered([*chain.from_iterable(answers), *predictions])
    cleaned, number = _numbered(list(map(clean, texts)))
    said = number[said]
    of_annotators, predicted = said[: len(question)], said[len(question) :]
    same = np.minimum.reduceat(of_annotators, starts) == np.maximum.reduceat(of_annotators, starts)
    found = {}
    for mode in modes:
        kept = same if mode == "official" else np.zeros_like(same)
        needed = np.zeros(len(cleaned), dtype=bool)
        needed[of_annotators[~kept[question]]] = needed[predicted[~kept]] = True
        number = _renumbered(cleaned, needed, normalize)
        ours = np.where(kept, predicted, number[predicted])
        theirs = np.where(kept[question], of_annotators, number[of_annotators])
        matches = np.add.reduceat((theirs == ours[question]).astype(np.int64), starts)
        # A matching annotator left out leaves one match less.
        left_out = np.minimum(1.0, np.maximum(matches - 1, 0) / 3), np.minimum(1.0, matches / 3)
        found[mode] = (matches * left_out[0] + (counts - matches) * left_out[1]) / counts
    return found


def _numbered(texts: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """The distinct texts, and the number of each text among them."""
    numbers = {text: i for i, text in enumerate(dict.fromkeys(texts))}
    return list(numbers), np.fromiter(map(numbers.__getitem__, texts), np.int64, len(texts))


def _renumbered(texts: Sequence[str], needed: np.ndarray, change: Callable[[str], str]) -> np.ndarray:
    """For each needed text the number of what it is changed to, int64 [texts]; -1 where it is not needed."""
    chosen = np.flatnonzero(needed)
    numbers = np.full(len(texts), -1, dtype=np.int64)
    numbers[chosen] = _numbered([change(texts[i]) for i in chosen.tolist()])[1]
    return numbers


class Annotated(Protocol):
    """One question's annotation."""

    @property
    def answers(self) -> Sequence[str]:
        """What the annotators said."""

    @property
    def multiple_choice_answer(self) -> str | None:
        """What most of them said, where the file has it."""


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
