"""Reading a task's annotations in their public formats: VQAv2's questions and answers, COCO's captions."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.contract import UserError


@dataclass(frozen=True)
class AnnotatedFiles:
    """Where a task's data lie; local paths."""

    annotations: str
    """VQAv2 annotations or COCO captions, JSON."""
    questions: str | None
    """VQAv2 questions, JSON; null for captions."""
    images: str
    """Folder of the images."""
    image_pattern: str
    """An image's file name, with `{image_id}` in it."""


def read_annotated(files: AnnotatedFiles) -> list[tuple[Any, str, str]]:
    """(image id, question or "", answer or caption), in file order.

    Raises UserError for a missing or malformed file and for an annotation whose question is not listed.
    """
    annotations = _records(files.annotations, "annotations")
    if files.questions is None:
        return [
            (_field(a, "image_id", files.annotations, row), "", _field(a, "caption", files.annotations, row))
            for row, a in enumerate(annotations)
        ]
    questions = {
        _field(q, "question_id", files.questions, row): _field(q, "question", files.questions, row)
        for row, q in enumerate(_records(files.questions, "questions"))
    }
    rows = []
    for row, annotation in enumerate(annotations):
        question_id = _field(annotation, "question_id", files.annotations, row)
        if question_id not in questions:
            raise UserError(
                f"{files.annotations}: annotations[{row}] answers question {question_id}, which {files.questions} "
                "does not hold: do the two files belong together?"
            )
        answer = _field(annotation, "multiple_choice_answer", files.annotations, row)
        rows.append((_field(annotation, "image_id", files.annotations, row), questions[question_id], answer))
    return rows


def _records(path: str, key: str) -> list[dict[str, Any]]:
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file: fix the task's `{key}`") from None
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error})") from None
    records = content.get(key) if isinstance(content, dict) else None
    if not isinstance(records, list) or not records:
        raise UserError(f"{path}: holds no list `{key}`: is it in VQAv2's or COCO's format?")
    return records


def _field(record: dict[str, Any], name: str, path: str, row: int) -> Any:
    if name not in record:
        raise UserError(f"{path}: record {row} has no `{name}`")
    return record[name]
