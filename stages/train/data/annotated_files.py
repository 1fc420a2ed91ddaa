"""The annotations that a task is trained on: VQAv2's questions and answers, COCO's captions and regions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.base.contract import UserError
from stages.formats.json_file import id_of, read_json, records_under
from stages.formats.problems import Id, ProblemLog, problem
from stages.formats.refexp import Box, box_of
from stages.formats.vqa import read_annotations, read_questions


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
class AnnotatedText:
    """One text about an image, or about a region of it."""

    image_id: Id
    question: str
    """Empty for captions and regions."""
    text: str
    """The answer or caption."""
    box: Box | None = None
    """left, top, right, bottom in pixels of the image."""


def read_annotated(files: AnnotatedFiles) -> list[AnnotatedText]:
    """A task's annotations in file order.

    Raises UserError for a missing or malformed file and for an annotation whose question is not listed.
    """
    if files.questions is not None:
        return _questions_and_answers(Path(files.annotations), Path(files.questions))
    return _captions(Path(files.annotations), files.regions)


def _questions_and_answers(annotations_file: Path, questions_file: Path) -> list[AnnotatedText]:
    annotations = read_annotations(annotations_file, required="multiple_choice_answer")
    questions = read_questions(questions_file, images_required=False)
    no_image = [a.question_id for a in annotations.records if a.image_id is None]
    problems = annotations.problems + questions.problems
    problems += problem("malformed", annotations_file, "annotation of question", no_image, "no image_id")
    problems += questions.missing(dict.fromkeys(a.question_id for a in annotations.records))
    # A question that is annotated twice is trained on twice.
    problems.without("duplicate").raise_if_any(", or name questions and annotations that belong together")
    return [
        AnnotatedText(a.image_id, questions.by_id[a.question_id].text, a.multiple_choice_answer)
        for a in annotations.records
        if a.image_id is not None and a.multiple_choice_answer is not None
    ]


def _captions(file: Path, regions: bool) -> list[AnnotatedText]:
    found: list[AnnotatedText] = []
    log = ProblemLog(file)
    for position, record in enumerate(records_under(read_json(file), "annotations", file)):
        image = id_of(record, ("image_id",), "annotation", position, log)
        if image is None:
            continue
        caption, box = record.get("caption"), _corners(record.get("bbox"))
        if not isinstance(caption, str):
            log.add("malformed", "annotation number", position, "no caption that is a string")
        elif regions and box is None:
            log.add("malformed", "annotation number", position, "bbox is not [left, top, width, height] with an area")
        else:
            found.append(AnnotatedText(image, "", caption, box if regions else None))
    log.problems().raise_if_any()
    if not found:
        raise UserError(f"{file}: no annotation in it; is it in COCO's format?")
    return found


def _corners(bbox: Any) -> Box | None:
    """COCO's [left, top, width, height] as left, top, right, bottom; None for anything else or without an area."""
    box = box_of(bbox)
    if box is None or box[2] <= 0 or box[3] <= 0:
        return None
    left, top, width, height = box
    return (left, top, left + width, top + height)
