"""VQA's official formats: annotations, questions and results."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stages.base.contract import UserError
from stages.evaluate.formats.json_file import id_of, is_id, read_json, records_under
from stages.evaluate.formats.problems import Id, Problems
from stages.evaluate.formats.texts import read_texts

#: The group of questions whose annotation names no type.
UNTYPED = "unspecified"


@dataclass
class Annotation:
    """What the annotators said to one question."""

    answers: list[str]
    """At least one."""
    image_id: Id | None
    answer_type: str
    question_type: str
    multiple_choice_answer: str | None


@dataclass
class Annotations:
    """All questions of a file."""

    file: Path
    questions: dict[Id, Annotation] = field(default_factory=dict)


def read_annotations(file: Path, problems: Problems) -> Annotations:
    """`annotations: [{question_id, answers: [{answer}], answer_type, question_type}]`. Raises UserError."""
    found = Annotations(file)
    held: dict[str, str] = {}  # annotators say the same again and again: each text is held once
    for place, record in enumerate(records_under(read_json(file), "annotations", file)):
        question = id_of(record, ("question_id",), file, "annotation", place, problems)
        if question is None:
            continue
        if question in found.questions:
            problems.add("duplicate", file, "annotation of question", question)
            continue
        answers = _answers(record.get("answers"), held)
        if answers is None:
            problems.add("malformed", file, "annotation of question", question, "answers are no list of {answer}")
        elif not answers:
            problems.add("empty", file, "annotation of question", question, "no answers")
        else:
            image, agreed = record.get("image_id"), record.get("multiple_choice_answer")
            found.questions[question] = Annotation(
                answers,
                image if is_id(image) else None,
                _type(record.get("answer_type"), held),
                _type(record.get("question_type"), held),
                agreed if isinstance(agreed, str) else None,
            )
    if not found.questions:
        raise UserError(f"{file}: no annotation in it that can be used; is it the right file?")
    return found


def _answers(given: Any, held: dict[str, str]) -> list[str] | None:
    if not isinstance(given, list):
        return None
    try:
        answers = [entry["answer"] for entry in given]
    except (TypeError, KeyError):
        return None
    if not all(type(answer) is str for answer in answers):
        return None
    return [held.setdefault(answer, answer) for answer in answers]


def _type(given: Any, held: dict[str, str]) -> str:
    text = str(given or UNTYPED)
    return held.setdefault(text, text)


def read_questions(file: Path, problems: Problems, annotations: Annotations | None = None) -> dict[Id, dict[str, Any]]:
    """`questions: [{question_id, image_id, question}]`: id -> record, in the file's order.

    With `annotations`, the two files must be of the same questions. Raises UserError.
    """
    found: dict[Id, dict[str, Any]] = {}
    for place, record in enumerate(records_under(read_json(file), "questions", file)):
        question = id_of(record, ("question_id",), file, "question", place, problems)
        if question is None:
            continue
        if question in found:
            problems.add("duplicate", file, "question", question)
        elif not isinstance(record.get("question"), str):
            problems.add("malformed", file, "question", question, "no question that is a string")
        elif not is_id(record.get("image_id")):
            problems.add("malformed", file, "question", question, "no image_id")
        else:
            found[question] = record
    if not found:
        raise UserError(f"{file}: no question in it; is it the right file?")
    if annotations is not None:
        known = annotations.questions
        problems.add_all("missing", file, "question", [q for q in known if q not in found])
        unknown = [q for q in found if q not in known]
        problems.add_all("missing", annotations.file, "annotation of question", unknown)
    return found


def read_answers(file: Path, annotations: Annotations, problems: Problems) -> dict[Id, str]:
    """Official results, `[{question_id, answer}]`: question -> answer; see :func:`read_texts`. Raises UserError."""
    return read_texts(file, "question_id", "answer", "question", annotations.questions, annotations.file, problems)
