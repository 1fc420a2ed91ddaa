"""VQA annotations and results in the official formats, made from words of captions: there are no VQAv2 files here.

What a scorer's time depends on is kept as in VQAv2: ten annotators per question, 65 question types, three answer types
in its proportions, about a third of the questions unanimous, and a long tail of answers that are given once, some with
punctuation, articles, contractions, number words or capitals.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

ANNOTATORS = 10
QUESTION_TYPES = tuple(
    " ".join(words)
    for words in product(
        ("what", "what color", "is", "are", "does", "do", "how many", "where", "which", "who", "why", "can", "was"),
        ("the", "this", "there", "you", "people"),
    )
)
_OF_IMAGE = 5  # questions about one picture


@dataclass(frozen=True)
class _Kind:
    """An answer type: its share of questions, how often all agree, and how much they agree (a beta) otherwise."""

    name: str
    share: float
    unanimous: float
    agreement: tuple[float, float]


_KINDS = (
    _Kind("yes/no", 0.38, 0.45, (6.0, 2.0)),
    _Kind("number", 0.12, 0.35, (4.0, 3.0)),
    _Kind("other", 0.50, 0.18, (2.2, 2.5)),
)
_NUMBER_WORDS = ("none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_CONTRACTED = ("don't know", "dont know", "can't tell", "cant tell", "it's", "isn't there", "isnt there", "man's")


def make(questions: int, captions: Sequence[str], seed: int = 0) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Contents of an annotations and a results file; `captions` are tokenised and give the words."""
    draw = _Draw(random.Random(seed), [caption.split() for caption in captions if " " in caption])
    annotations, results = [], []
    for number in range(questions):
        record, answer = draw.question(number)
        annotations.append(record)
        results.append({"question_id": record["question_id"], "answer": answer})
    return {"info": {}, "license": {}, "annotations": annotations}, results


@dataclass(frozen=True)
class _Draw:
    random: random.Random
    captions: list[list[str]]

    def question(self, number: int) -> tuple[dict[str, Any], str]:
        kind = self.random.choices(_KINDS, [kind.share for kind in _KINDS])[0]
        agreed = self.answer(kind.name)
        others = [self.answer(kind.name) for _ in range(self.random.randint(1, 4))]
        unanimous = self.random.random() < kind.unanimous
        agreement = 1.0 if unanimous else self.random.betavariate(*kind.agreement)
        answers = [self.annotator_answer(kind.name, agreed, others, agreement) for _ in range(ANNOTATORS)]
        if unanimous:
            answers = [agreed] * ANNOTATORS
        image = 1 + number // _OF_IMAGE
        record = {
            "question_id": image * 1000 + number % _OF_IMAGE,
            "image_id": image,
            # Squared, so that some types are common and some rare, as they are.
            "question_type": QUESTION_TYPES[int(len(QUESTION_TYPES) * self.random.random() ** 2)],
            "answer_type": kind.name,
            "multiple_choice_answer": max(answers, key=answers.count),
            "answers": [
                {"answer": answer, "answer_confidence": self.random.choice(("yes", "yes", "maybe")), "answer_id": i}
                for i, answer in enumerate(answers, 1)
            ],
        }
        return record, self.annotator_answer(kind.name, agreed, others, 0.65)

    def annotator_answer(self, kind: str, agreed: str, others: Sequence[str], agreement: float) -> str:
        answer = agreed
        if self.random.random() > agreement:
            answer = self.random.choice(others) if self.random.random() < 0.6 else self.answer(kind)
        return self.spelt(answer) if self.random.random() < 0.06 else answer

    def answer(self, kind: str) -> str:
        if kind == "yes/no" and self.random.random() < 0.97:
            return "yes" if self.random.random() < 0.55 else "no"
        if kind == "number" and self.random.random() < 0.93:
            many = int(self.random.expovariate(0.3))
            return str(many) if self.random.random() < 0.9 else self.random.choice(("1,000", "10:30", "2.5", "20+"))
        if self.random.random() < 0.03:
            return self.random.choice(_CONTRACTED)
        # A word of a random caption is a frequent one as often as the word is frequent: the tail comes by itself.
        words = self.random.choice(self.captions)
        length = self.random.choices((1, 2, 3, 4), (0.68, 0.2, 0.08, 0.04))[0]
        start = self.random.randrange(len(words))
        return " ".join(words[start : start + length])

    def spelt(self, answer: str) -> str:
        """The same answer as somebody else would write it."""
        if answer.isdecimal() and int(answer) < len(_NUMBER_WORDS):
            return _NUMBER_WORDS[int(answer)]
        ways = (
            answer.capitalize(),
            f"{self.random.choice(('a', 'the'))} {answer}",
            f"{answer}.",
            f"{answer}, {self.answer('other')}",
            f"{answer}/{self.answer('other')}",
            f"{answer}?",
            answer.replace(" ", "-"),
            f" {answer}",
        )
        return self.random.choice(ways)
