"""The one reader of VQA's questions and annotations, with what each of its users needs of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stages.base.contract import UserError
from stages.formats.vqa import UNTYPED, read_annotations, read_questions


def written(folder: Path, **content: Any) -> Path:
    file = folder / "file.json"
    file.write_text(json.dumps(content))
    return file


def test_of_duplicates_the_first_counts_and_all_are_read(tmp_path: Path) -> None:
    records = [{"question_id": 1, "image_id": n, "question": f"q{n}"} for n in range(2)]
    found = read_questions(written(tmp_path, questions=records))
    assert [record.text for record in found.records] == ["q0", "q1"]
    assert found.by_id[1].text == "q0"
    assert [p.kind for p in found.problems.found] == ["duplicate"]
    answers = [{"question_id": 1, "answers": [{"answer": a}]} for a in ("yes", "no")]
    annotations = read_annotations(written(tmp_path, annotations=answers))
    assert annotations.by_question[1].answers == ["yes"]
    assert len(annotations.records) == 2


def test_an_image_is_needed_only_where_it_is_required(tmp_path: Path) -> None:
    file = written(tmp_path, questions=[{"question_id": 1, "question": "q"}, {"question_id": 2, "question": 5}])
    found = read_questions(file, images_required=False)
    assert [(record.question_id, record.image_id) for record in found.records] == [(1, None)]
    assert [p.entries for p in found.problems.found] == [(2,)]
    with pytest.raises(UserError, match=r"file\.json: no question in it that can be used .*no image_id"):
        read_questions(file)


def test_training_needs_the_agreed_answer_and_scoring_all_answers(tmp_path: Path) -> None:
    agreed = {"question_id": 1, "image_id": 1, "multiple_choice_answer": "yes"}
    every = {"question_id": 2, "answers": [{"answer": "no"}], "answer_type": "yes/no"}
    file = written(tmp_path, annotations=[agreed, every])
    (trained,) = read_annotations(file, required="multiple_choice_answer").records
    assert (trained.question_id, trained.multiple_choice_answer, trained.answers) == (1, "yes", [])
    (scored,) = read_annotations(file).records
    assert (scored.question_id, scored.answers, scored.answer_type, scored.question_type) == (
        2,
        ["no"],
        "yes/no",
        UNTYPED,
    )


def test_files_that_belong_together_have_the_same_questions(tmp_path: Path) -> None:
    records = [{"question_id": n, "image_id": 1, "question": "q"} for n in (1, 2)]
    questions = read_questions(written(tmp_path, questions=records))
    assert not questions.missing([2, 1])
    assert [p.entries for p in questions.missing([2, 3]).found] == [(3,)]
