"""Reading a task's annotations in their public formats: VQAv2's questions and answers, COCO's captions and regions."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.base.contract import UserError

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class AnnotatedFiles:
    """Where a task's data lie; local paths."""

    annotations: str
    """VQAv2 annotations, or COCO captions or regions, JSON."""
    questions: str | None
    """VQAv2 questions, JSON; null for captions and regions."""
    images: str
    """Folder of the images."""
    image_pattern: str
    """An image's file name, with `{image_id}` in it."""
    regions: bool = False
    """Whether every caption is of a region of its image, its `bbox`."""


@dataclass(frozen=True)
class Annotation:
    """One text about an image, or about a region of it."""

    image_id: Any
    question: str
    """Empty for captions and regions."""
    text: str
    """The answer or caption."""
    box: Box | None = None
    """left, top, right, bottom in pixels of the image."""


def read_annotated(files: AnnotatedFiles) -> list[Annotation]:
    """A task's annotations in file order.

    Raises UserError for a missing or malformed file and for an annotation whose question is not listed.
    """
    annotations = _records(files.annotations, "annotations")
    path = files.annotations
    if files.questions is None:
        return [
            Annotation(
                _field(a, "image_id", path, row),
                "",
                _text(a, "caption", path, row),
                _box(_field(a, "bbox", path, row), path, row) if files.regions else None,
            )
            for row, a in enumerate(annotations)
        ]
    questions = {
        _field(q, "question_id", files.questions, row): _text(q, "question", files.questions, row)
        for row, q in enumerate(_records(files.questions, "questions"))
    }
    rows = []
    for row, annotation in enumerate(annotations):
        question_id = _field(annotation, "question_id", path, row)
        if question_id not in questions:
            raise UserError(
                f"{path}: annotations[{row}] answers question {question_id}, which {files.questions} "
                "does not hold: do the two files belong together?"
            )
        answer = _text(annotation, "multiple_choice_answer", path, row)
        rows.append(Annotation(_field(annotation, "image_id", path, row), questions[question_id], answer))
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
    if not isinstance(record, dict) or name not in record:
        raise UserError(f"{path}: record {row} has no `{name}`")
    return record[name]


def _text(record: dict[str, Any], name: str, path: str, row: int) -> str:
    value = _field(record, name, path, row)
    if not isinstance(value, str):
        raise UserError(f"{path}: record {row}'s `{name}` is no text")
    return value


def _box(value: Any, path: str, row: int) -> Box:
    """COCO's [left, top, width, height] as left, top, right, bottom."""
    if (
        isinstance(value, list)
        and len(value) == 4
        and all(isinstance(x, int | float) and math.isfinite(x) for x in value)
    ):
        left, top, width, height = (float(x) for x in value)
        if width > 0 and height > 0:
            return (left, top, left + width, top + height)
    raise UserError(f"{path}: record {row}'s `bbox` is not [left, top, width, height] of a region with an area")
