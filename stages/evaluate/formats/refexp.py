"""Referring expressions: boxes that people drew (COCO's or RefCOCO's JSON) and boxes that a model answered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from models.common.location_tokens import boxes_from_text
from stages.base.contract import UserError
from stages.evaluate.formats.json_file import finite, hint_of_types, id_of, in_order, is_id, read_json
from stages.evaluate.formats.problems import Id, Problems, shown
from stages.evaluate.metrics.boxes import SPACES, Space

Box = tuple[float, float, float, float]
#: What an annotation or a result may call its trial; the first that it has counts.
_KEYS = ("id", "sent_id", "annotation_id", "ref_id", "question_id")


@dataclass(frozen=True)
class Expression:
    """One trial: a sentence, and the box it means."""

    image_id: Id | None
    box: Box
    """xywh in pixels."""
    size: tuple[float, float] | None
    """Width and height of the image, where the file has them."""
    sentence: str


@dataclass
class Expressions:
    """All trials of a file."""

    file: Path
    trials: dict[Id, Expression] = field(default_factory=dict)


@dataclass
class Answers:
    """What a model answered."""

    space: Space
    """What the coordinates of the boxes mean; boxes read from location tokens are in pixels already."""
    boxes: dict[Id, Box | None] = field(default_factory=dict)
    """Trial -> xywh, None where no box could be read from the answer; trials in an order of their own."""
    in_pixels: set[Id] = field(default_factory=set)
    """Trials whose box came from location tokens."""


def read_expressions(file: Path, problems: Problems) -> Expressions:
    """`annotations: [{id, image_id, bbox: [x, y, width, height], caption}]`, boxes in pixels.

    An annotation with RefCOCO's `sentences: [{sent_id, sent}]` is one trial per sentence. `images: [{id, width,
    height}]` give the sizes that other coordinate spaces need. A plain list of annotations is read as well. Raises
    UserError.
    """
    content = read_json(file)
    annotations = content.get("annotations") if isinstance(content, dict) else content
    if not isinstance(annotations, list):
        raise UserError(f"{file}: no list 'annotations' in it; is it the right file?")
    images = content.get("images") if isinstance(content, dict) else None
    sizes = _sizes(images if isinstance(images, list) else [])
    found = Expressions(file)
    for place, record in enumerate(annotations):
        trials = record.get("sentences") if isinstance(record, Mapping) else None
        for trial in trials if isinstance(trials, list) else [record]:
            key = id_of(trial, _KEYS, file, "annotation", place, problems)
            if key is None:
                continue
            box = box_of(record.get("bbox"))
            if key in found.trials:
                problems.add("duplicate", file, "annotation", key)
            elif box is None or box[2] <= 0 or box[3] <= 0:
                problems.add("malformed", file, "annotation", key, "bbox is not [x, y, width, height] with an area")
            else:
                image = record.get("image_id")
                size = _size(record) or sizes.get(image if is_id(image) else None)
                found.trials[key] = Expression(image if is_id(image) else None, box, size, _sentence(trial))
    if not found.trials:
        raise UserError(f"{file}: no annotation with a box in it; is it the right file?")
    return found


def _sizes(images: list[Any]) -> dict[Id | None, tuple[float, float]]:
    found: dict[Id | None, tuple[float, float]] = {}
    for image in images:
        if isinstance(image, Mapping) and is_id(image.get("id")) and (size := _size(image)):
            found[image["id"]] = size
    return found


def _size(record: Mapping[str, Any]) -> tuple[float, float] | None:
    width, height = record.get("width"), record.get("height")
    if not finite(width) or not finite(height) or width is None or height is None or width <= 0 or height <= 0:
        return None
    return float(width), float(height)


def _sentence(trial: Mapping[str, Any]) -> str:
    for key in ("sent", "sentence", "caption", "raw", "expression", "question"):
        if isinstance(trial.get(key), str):
            return str(trial[key])
    return ""


def box_of(value: Any) -> Box | None:
    """Four finite numbers, or None. A negative width or height is no box."""
    if not isinstance(value, list | tuple) or len(value) != 4 or not all(map(finite, value)):
        return None
    x, y, width, height = map(float, value)
    return (x, y, width, height) if width >= 0 and height >= 0 else None


def read_boxes(file: Path, expressions: Expressions, space: Space | None, problems: Problems) -> Answers:
    """A results file: `[{id, bbox: [x, y, width, height]}]`, or `{coordinates: "normalized", results: [...]}`.

    An entry without `bbox` may have `text` with four location tokens (`<loc_12>` ...: corners in thousandths of the
    image). An answer that is no box is a parse failure, which is an answer, and wrong; only an entry without id, or for
    no known trial, is a problem of the file. `space` None means what the file declares, else pixels. Raises UserError.
    """
    content = read_json(file)
    declared = content.get("coordinates") if isinstance(content, dict) else None
    entries = content.get("results") if isinstance(content, dict) else content
    if not isinstance(entries, list):
        raise UserError(f'{file}: no list of results; they are [{{"id": ..., "bbox": [x, y, width, height]}}, ...]')
    if declared is not None and declared not in SPACES:
        raise UserError(f"{file}: coordinates is none of {', '.join(SPACES)}; mend it")
    if declared is not None and space is not None and declared != space:
        raise UserError(f"{file}: its coordinates are declared as {declared}, not {space}; drop --coordinates")
    found = Answers(space or declared or "pixels")
    unknown: list[Id] = []
    for place, entry in enumerate(entries):
        key = id_of(entry, _KEYS, file, "entry", place, problems)
        if key is None:
            continue
        if key in found.boxes:
            problems.add("duplicate", file, "box of", key)
        elif key not in expressions.trials:
            unknown.append(key)
        else:
            found.boxes[key] = _answered(entry, key, expressions, found)
    hint = hint_of_types(expressions.trials, unknown)
    problems.add_all("unknown", file, "annotation", unknown, hint or f"not in {expressions.file}")
    problems.add_all("missing", file, "box of", [key for key in expressions.trials if key not in found.boxes])
    if not found.boxes:
        raise UserError(f"{file}: no box of any annotation of {expressions.file}{f' ({hint})' if hint else ''}")
    found.boxes = {key: found.boxes[key] for key in in_order(found.boxes)}
    return found


def _answered(entry: Mapping[str, Any], key: Id, expressions: Expressions, found: Answers) -> Box | None:
    text = entry.get("text", entry.get("answer"))
    if entry.get("bbox") is not None or not isinstance(text, str):
        return box_of(entry.get("bbox"))
    size = expressions.trials[key].size
    if size is None and "<loc_" in text:
        raise UserError(
            f"{expressions.file}: annotation {shown(key)} has no image width and height, which location tokens need"
        )
    boxes = boxes_from_text(text, *size) if size else []
    if not boxes:
        return None
    found.in_pixels.add(key)
    x1, y1, x2, y2 = boxes[0]
    return box_of([x1, y1, x2 - x1, y2 - y1])
