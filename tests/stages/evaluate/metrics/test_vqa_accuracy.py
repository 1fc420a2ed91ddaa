"""VQA accuracy against the official evaluation, quirks included."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.evaluate.metrics.vqa.accuracy import accuracies, majority_answer
from stages.evaluate.metrics.vqa.normalize import normalize

ANSWERS = st.sampled_from(["yes", "Yes", "no", "2", "two", "the dog", "dog.", "a", "", "dont", "1,000", "x-y", "x y"])


def of_one(prediction, answers, mode="official"):
    return float(accuracies([prediction], [answers], (mode,))[mode][0])


def test_a_unanimous_answer_is_compared_raw_unless_normalized():
    assert of_one("Yes", ["yes"] * 10) == 0
    assert of_one("Yes", ["yes"] * 10, "normalized") == 1
    assert of_one("Yes", ["yes"] * 9 + ["no"]) == 1


def test_only_32_full_stops_are_removed():
    assert normalize("." * 40) == "." * 8


@pytest.mark.parametrize(
    ("answer", "normalized"),
    [
        ("somebody'd", "somebodyd"),
        ("lets", "lets"),
        ("dont", "don't"),
        ("couldnt've", "couldn't've"),
        ("eleven", "eleven"),
        ("10-20", "10 20"),
        ("1,000-2", "10002"),
        ("3.5", "3.5"),
        ("black/ white", "black white"),
    ],
)
def test_the_tables_keep_their_oddities(answer, normalized):
    assert normalize(answer) == normalized


@given(st.lists(st.sampled_from(["yes", "no", "2"]), min_size=10, max_size=10), st.sampled_from(["yes", "no", "2"]))
def test_accuracy_is_the_published_function_of_the_number_of_matches(answers, prediction):
    published = [0, 0.3, 0.6, 0.9, *[1.0] * 7]
    assert of_one(prediction, answers) == pytest.approx(published[answers.count(prediction)])


@given(
    st.lists(st.tuples(ANSWERS, st.lists(ANSWERS, min_size=1, max_size=12)), min_size=1, max_size=8),
    st.randoms(use_true_random=False),
)
def test_a_question_scores_the_same_alone_and_among_others(questions, draw):
    shuffled = draw.sample(questions, len(questions))
    found = accuracies(*zip(*shuffled, strict=True))
    for mode, values in found.items():
        alone = [of_one(prediction, answers, mode) for prediction, answers in shuffled]
        assert np.array_equal(values, alone)
        mixed = [of_one(p, draw.sample(answers, len(answers)), mode) for p, answers in shuffled]
        assert values == pytest.approx(mixed, abs=1e-12)


def test_questions_and_answers_must_be_there():
    with pytest.raises(ValueError, match="question number 1 has no answers"):
        accuracies(["yes", "no"], [["yes"], []])
    with pytest.raises(ValueError, match="1 predictions for 2 questions"):
        accuracies(["yes"], [["yes"], ["no"]])
    assert len(accuracies([], [])["official"]) == 0


@dataclass
class Annotated:
    multiple_choice_answer: str | None
    answers: list[str]


def test_the_majority_answer_breaks_ties_by_code_point():
    records = [Annotated(answer, []) for answer in ("red", "blue", "red", "blue", "no")]
    assert majority_answer(records) == "blue"
    assert majority_answer([Annotated(None, ["x", "y", "y"])]) == "y"
    with pytest.raises(ValueError, match="no annotations"):
        majority_answer([])
