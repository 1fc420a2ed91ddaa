"""VQA accuracy against the official evaluation, quirks included."""

from __future__ import annotations

import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.evaluate.metrics import vqa


def test_every_tricky_case_scores_as_the_official_code_does(shared):
    golden = json.loads((shared / "golden/vqa/tricky.json").read_text())
    for case in golden["cases"]:
        assert vqa.accuracy(case["prediction"], case["answers"]) == pytest.approx(case["accuracy"], abs=1e-12), case
    mean = sum(vqa.accuracy(c["prediction"], c["answers"]) for c in golden["cases"]) / len(golden["cases"])
    assert round(100 * mean, 2) == golden["overall_n2"]


def test_files_in_the_official_formats_score_as_published(shared):
    def read(name):
        with gzip.open(shared / f"golden/vqa/rand500/{name}.json.gz") as file:
            return json.load(file)

    results, expected = read("results"), read("expected")
    scores = vqa.score({r["question_id"]: r["answer"] for r in results}, read("annotations")["annotations"])
    assert round(scores.accuracy, 2) == expected["accuracy"]["overall"]
    assert {k: round(v, 2) for k, v in scores.per_answer_type.items()} == expected["accuracy"]["perAnswerType"]
    assert {k: round(v, 2) for k, v in scores.per_question_type.items()} == expected["accuracy"]["perQuestionType"]


def test_a_unanimous_answer_is_compared_raw_unless_normalized():
    assert vqa.accuracy("Yes", ["yes"] * 10) == 0
    assert vqa.accuracy("Yes", ["yes"] * 10, "normalized") == 1
    assert vqa.accuracy("Yes", ["yes"] * 9 + ["no"]) == 1


def test_only_32_full_stops_are_removed():
    assert vqa.normalize("." * 40) == "." * 8


@pytest.mark.parametrize(
    ("answer", "normalized"),
    [
        ("somebody'd", "somebodyd"),
        ("lets", "lets"),
        ("dont", "don't"),
        ("couldnt've", "couldn't've"),
        ("eleven", "eleven"),
    ],
)
def test_the_tables_keep_their_oddities(answer, normalized):
    assert vqa.normalize(answer) == normalized


@given(st.lists(st.sampled_from(["yes", "no", "2"]), min_size=10, max_size=10), st.sampled_from(["yes", "no", "2"]))
def test_accuracy_is_the_published_function_of_the_number_of_matches(answers, prediction):
    published = [0, 0.3, 0.6, 0.9, *[1.0] * 7]
    assert vqa.accuracy(prediction, answers) == pytest.approx(published[answers.count(prediction)])


def test_a_question_without_prediction_or_answers_is_an_error():
    question = {"question_id": 7, "answers": [{"answer": "yes"}]}
    with pytest.raises(ValueError, match="question 7 has no prediction"):
        vqa.score({}, [question])
    with pytest.raises(ValueError, match="without answers"):
        vqa.accuracy("yes", [])


def test_the_majority_answer_breaks_ties_by_code_point():
    records = [{"multiple_choice_answer": answer} for answer in ("red", "blue", "red", "blue", "no")]
    assert vqa.majority_answer(records) == "blue"
