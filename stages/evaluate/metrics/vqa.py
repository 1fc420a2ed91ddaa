"""VQA accuracy (Antol et al. 2015), exact against the official evaluation, quirks included."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from stages.evaluate.metrics.vqa_words import ARTICLES, CONTRACTIONS, NUMBERS, PUNCTUATION

Mode = Literal["official", "normalized"]

_COMMA_IN_NUMBER = re.compile(r"\d,\d")
_FULL_STOP = re.compile(r"\.(?!\d)")
# The official code passes a flag where `re.sub` takes a count, and so replaces at most this many full stops.
_MOST_FULL_STOPS = int(re.UNICODE)


def normalize(answer: str) -> str:
    """An answer after the official processing of punctuation, number words, articles and contractions."""
    text = answer
    for mark in PUNCTUATION:
        # One comma between digits, or the mark beside a space, and it vanishes everywhere; otherwise it separates.
        alone = f"{mark} " in answer or f" {mark}" in answer or _COMMA_IN_NUMBER.search(answer)
        text = text.replace(mark, "" if alone else " ")
    text = _FULL_STOP.sub("", text, count=_MOST_FULL_STOPS)
    words = [NUMBERS.get(word, word) for word in text.lower().split()]
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def accuracy(prediction: str, answers: Sequence[str], mode: Mode = "official") -> float:
    """Accuracy in [0, 1] against one question's annotators.

    The mean over all subsets that leave one annotator out of min(1, matches / 3). `official` normalises only where
    the annotators differ (so "Yes" against ten "yes" scores 0); `normalized` always. Raises ValueError without answers.
    """
    if not answers:
        raise ValueError("a question without answers cannot be scored")
    said = [_spaced(answer) for answer in answers]
    predicted = _spaced(prediction)
    if mode == "normalized" or len(set(said)) > 1:
        said = [normalize(answer) for answer in said]
        predicted = normalize(predicted)
    matches = said.count(predicted)
    scores = [min(1.0, (matches - (answer == predicted)) / 3) for answer in said]
    return sum(scores) / len(scores)


def _spaced(answer: str) -> str:
    return answer.replace("\n", " ").replace("\t", " ").strip()


@dataclass(frozen=True)
class VqaScores:
    """Scores over a set of questions, in percent."""

    accuracy: float
    per_answer_type: dict[str, float]
    per_question_type: dict[str, float]
    per_question: list[float]
    """Accuracy in [0, 1] of each question, in the order of the annotations."""


def score(
    predictions: Mapping[Any, str], annotations: Sequence[Mapping[str, Any]], mode: Mode = "official"
) -> VqaScores:
    """Score answers by question id against annotations in the official format.

    Raises ValueError naming the first question that has no prediction.
    """
    each: list[float] = []
    answer_types: dict[str, list[float]] = defaultdict(list)
    question_types: dict[str, list[float]] = defaultdict(list)
    for annotation in annotations:
        question_id = annotation["question_id"]
        if question_id not in predictions:
            raise ValueError(f"question {question_id} has no prediction")
        answers = [answer["answer"] for answer in annotation["answers"]]
        value = accuracy(predictions[question_id], answers, mode)
        each.append(value)
        answer_types[annotation.get("answer_type", "other")].append(value)
        question_types[annotation.get("question_type", "other")].append(value)
    return VqaScores(_percent(each), _percents(answer_types), _percents(question_types), each)


def majority_answer(annotations: Sequence[Mapping[str, Any]]) -> str:
    """The answer given most often over all questions; of several equally frequent, the first by code point.

    Raises ValueError when there are no annotations.
    """
    counts: dict[str, int] = defaultdict(int)
    for annotation in annotations:
        agreed = annotation.get("multiple_choice_answer")
        for answer in [agreed] if agreed is not None else [a["answer"] for a in annotation["answers"]]:
            counts[answer] += 1
    if not counts:
        raise ValueError("no annotations to take a majority answer from")
    return min(counts, key=lambda answer: (-counts[answer], answer))


def _percents(groups: Mapping[str, list[float]]) -> dict[str, float]:
    return {name: _percent(groups[name]) for name in sorted(groups)}


def _percent(values: Sequence[float]) -> float:
    return 100 * sum(values) / len(values) if values else 0.0
