"""VQA accuracy the way the official evaluation goes about it: one question after the other, in plain Python.

Written from the description of the algorithm, as a peer to measure against. Every answer of every question is worked
on by itself, nothing is remembered, and an annotator is left out by comparing whole records. The tables (punctuation,
contractions, number words) are part of the metric and shared with ours; `golden/vqa`, which the official code made,
says whether algorithm and tables are right.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from stages.evaluate.metrics.vqa.normalize import ARTICLES, CONTRACTIONS, NUMBERS, PUNCTUATION

_DIGITS_WITH_COMMA = re.compile(r"(\d)(,)(\d)")
_PERIOD = re.compile(r"(\.)(?!\d)")


class OfficialVqa:
    """Accuracies in percent, not rounded, of answers to annotated questions."""

    def __init__(self, annotations: Mapping[Any, dict[str, Any]], answers: Mapping[Any, str]) -> None:
        """`annotations`: question id -> record of the official format; as officially, evaluating changes it."""
        self.annotations = annotations
        self.answers = answers
        self.per_question: dict[Any, float] = {}
        self.overall = 0.0
        self.per_answer_type: dict[str, float] = {}
        self.per_question_type: dict[str, float] = {}

    def evaluate(self) -> None:
        """Fill in the accuracies of all questions that are answered."""
        every: list[float] = []
        of_answer_type: dict[str, list[float]] = {}
        of_question_type: dict[str, list[float]] = {}
        for question, given in self.answers.items():
            record = self.annotations[question]
            accuracy = self._question(record["answers"], given)
            every.append(accuracy)
            of_answer_type.setdefault(record["answer_type"], []).append(accuracy)
            of_question_type.setdefault(record["question_type"], []).append(accuracy)
            self.per_question[question] = 100 * accuracy
        self.overall = _percent(every)
        self.per_answer_type = {kind: _percent(scores) for kind, scores in of_answer_type.items()}
        self.per_question_type = {kind: _percent(scores) for kind, scores in of_question_type.items()}

    def _question(self, annotators: list[dict[str, Any]], given: str) -> float:
        for record in annotators:
            record["answer"] = _on_one_line(record["answer"])
        given = _on_one_line(given)
        if len({record["answer"] for record in annotators}) > 1:
            for record in annotators:
                record["answer"] = _words(_punctuation(record["answer"]))
            given = _words(_punctuation(given))
        scores = []
        for left_out in annotators:
            others = [record for record in annotators if record != left_out]
            agreeing = [record for record in others if record["answer"] == given]
            scores.append(min(1.0, float(len(agreeing)) / 3))
        return sum(scores) / len(scores)


def _on_one_line(answer: str) -> str:
    return answer.replace("\n", " ").replace("\t", " ").strip()


def _punctuation(answer: str) -> str:
    text = answer
    for mark in PUNCTUATION:
        beside_space = mark + " " in answer or " " + mark in answer
        if beside_space or re.search(_DIGITS_WITH_COMMA, answer) is not None:
            text = text.replace(mark, "")
        else:
            text = text.replace(mark, " ")
    # The official call passes this flag in the place of a count: no more than 32 full stops go.
    return _PERIOD.sub("", text, count=int(re.UNICODE))


def _words(answer: str) -> str:
    kept = []
    for word in answer.lower().split():
        digit = NUMBERS.get(word, word)
        if digit not in ARTICLES:
            kept.append(digit)
    for place, word in enumerate(kept):
        if word in CONTRACTIONS:
            kept[place] = CONTRACTIONS[word]
    return " ".join(kept)


def _percent(accuracies: list[float]) -> float:
    return 100 * float(sum(accuracies)) / len(accuracies)
