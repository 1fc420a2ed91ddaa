"""VQA's official formats: questions, annotations and results."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from stages.base.contract import UserError
from stages.formats.json_file import TextResults, id_of, is_id, read_json, read_text_results, records_under
from stages.formats.problems import Id, ProblemLog, Problems, problem

#: The group of questions whose annotation names no type.
UNTYPED = "unspecified"


@dataclass(slots=True)
class Question:
    """One question about an image."""

    question_id: Id
    image_id: Id | None
    """None only where images were not required."""
    text: str
    file_name: str
    """The image's, where the file lists it; else empty."""


@dataclass(frozen=True)
class Questions:
    """All questions of a file."""

    file: Path | str
    records: list[Question]
    """Those that can be used, in the file's order, duplicates included."""
    problems: Problems

    @cached_property
    def by_id(self) -> dict[Id, Question]:
        """Question id -> question; of duplicates the first, in the file's order."""
        found: dict[Id, Question] = {}
        for record in self.records:
            found.setdefault(record.question_id, record)
        return found

    def missing(self, question_ids: Iterable[Id]) -> Problems:
        """The questions that the file lacks."""
        return problem("missing", self.file, "question", [i for i in question_ids if i not in self.by_id])


@dataclass(slots=True)
class Annotation:
    """The annotators' answers to one question."""

    question_id: Id
    answers: list[str]
    """At least one where answers were required."""
    image_id: Id | None
    answer_type: str
    question_type: str
    multiple_choice_answer: str | None
    """The most frequent answer, by which models are trained."""


@dataclass(frozen=True)
class Annotations:
    """All annotations of a file."""

    file: Path
    records: list[Annotation]
    """Those that can be used, in the file's order, duplicates included."""
    problems: Problems

    @cached_property
    def by_question(self) -> dict[Id, Annotation]:
        """Question id -> annotation; of duplicates the first, in the file's order."""
        found: dict[Id, Annotation] = {}
        for record in self.records:
            found.setdefault(record.question_id, record)
        return found

    def missing(self, question_ids: Iterable[Id]) -> Problems:
        """The questions that the file has no annotation of."""
        missing = [i for i in question_ids if i not in self.by_question]
        return problem("missing", self.file, "annotation of question", missing)


def read_questions(file: Path, images_required: bool = True) -> Questions:
    """Read a questions file; see :func:`parse_questions`. Raises UserError."""
    return parse_questions(read_json(file), file, images_required)


def parse_questions(content: Any, file: Path | str, images_required: bool = True) -> Questions:
    """`questions: [{question_id, image_id, question}]`, read from `file`, which messages name.

    `images_required` is whether a question without `image_id` is malformed. Raises UserError for content of another
    kind or without any question.
    """
    records: list[Question] = []
    seen: set[Id] = set()
    log = ProblemLog(file)
    for position, record in enumerate(records_under(content, "questions", file)):
        question = id_of(record, ("question_id",), "question", position, log)
        if question is None:
            continue
        text, image = record.get("question"), record.get("image_id")
        if question in seen:
            log.add("duplicate", "question", question)
        if not isinstance(text, str):
            log.add("malformed", "question", question, "no question that is a string")
        elif images_required and not is_id(image):
            log.add("malformed", "question", question, "no image_id")
        else:
            seen.add(question)
            name = str(record.get("file_name") or "")
            records.append(Question(question, image if is_id(image) else None, text, name))
    if not records:
        raise _nothing_usable(file, "question", log.problems())
    return Questions(file, records, log.problems())


def read_annotations(file: Path, required: Literal["answers", "multiple_choice_answer"] = "answers") -> Annotations:
    """`annotations: [{question_id, answers: [{answer}], answer_type, question_type, multiple_choice_answer}]`.

    `required` is the field without which an entry is malformed: scoring needs all answers, training the most frequent.
    Raises UserError for a file of another kind or without any annotation that can be used.
    """
    records: list[Annotation] = []
    seen: set[Id] = set()
    pool: dict[str, str] = {}  # annotators give the same answers again and again: each text is held once
    log = ProblemLog(file)
    for position, record in enumerate(records_under(read_json(file), "annotations", file)):
        question = id_of(record, ("question_id",), "annotation", position, log)
        if question is None:
            continue
        if question in seen:
            log.add("duplicate", "annotation of question", question)
        answers = _answers(record.get("answers"), pool)
        image, agreed = record.get("image_id"), record.get("multiple_choice_answer")
        if required == "multiple_choice_answer":
            if not isinstance(agreed, str):
                log.add("malformed", "annotation of question", question, f"no {required} that is a string")
                continue
        elif answers is None:
            log.add("malformed", "annotation of question", question, "answers are no list of {answer}")
            continue
        elif not answers:
            log.add("empty", "annotation of question", question, "no answers")
            continue
        seen.add(question)
        records.append(
            Annotation(
                question,
                answers or [],
                image if is_id(image) else None,
                _type(record.get("answer_type"), pool),
                _type(record.get("question_type"), pool),
                agreed if isinstance(agreed, str) else None,
            )
        )
    if not records:
        raise _nothing_usable(file, "annotation", log.problems())
    return Annotations(file, records, log.problems())


def _nothing_usable(file: Path | str, noun: str, problems: Problems) -> UserError:
    faults = f" ({', '.join(map(str, problems.found))})" if problems else ""
    return UserError(f"{file}: no {noun} in it that can be used{faults}; is it the right file?")


def _answers(given: Any, pool: dict[str, str]) -> list[str] | None:
    if not isinstance(given, list):
        return None
    try:
        answers = [entry["answer"] for entry in given]
    except (TypeError, KeyError):
        return None
    if not all(type(answer) is str for answer in answers):
        return None
    return [pool.setdefault(answer, answer) for answer in answers]


def _type(given: Any, pool: dict[str, str]) -> str:
    text = str(given or UNTYPED)
    return pool.setdefault(text, text)


def read_answers(file: Path, annotations: Annotations) -> TextResults:
    """Official results, `[{question_id, answer}]`; see :func:`read_text_results`. Raises UserError."""
    return read_text_results(file, "question_id", "answer", "question", annotations.by_question, annotations.file)
