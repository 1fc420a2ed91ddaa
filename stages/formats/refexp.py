"""Referring expressions: annotated boxes (COCO's or RefCOCO's JSON) and a model's boxes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from models.common.location_tokens import boxes_from_text
from stages.base.contract import UserError
from stages.formats.json_file import finite, hint_of_types, id_of, in_order, is_id, read_json
from stages.formats.problems import Id, ProblemLog, Problems, printable

#: What coordinates count: pixels, fractions of the image's width and height, or thousandths of them.
Space = Literal["pixels", "normalized", "thousandths"]
SPACES: tuple[Space, ...] = get_args(Space)
Box = tuple[float, float, float, float]
#: The keys under which an annotation or a result may have its id; the first that it has counts.
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


@dataclass(frozen=True)
class Expressions:
    """All trials of a file."""

    file: Path
    trials: dict[Id, Expression]
    problems: Problems


@dataclass(frozen=True)
class BoxResults:
    """A model's boxes."""

    file: Path
    space: Space
    """What the coordinates of the boxes mean; boxes read from location tokens are in pixels already."""
    boxes: dict[Id, Box | None] = field(default_factory=dict)
    """Trial -> xywh, None where no box could be read from the answer; sorted by the trial's id."""
    in_pixels: set[Id] = field(default_factory=set)
    """Trials whose box came from location tokens."""
    problems: Problems = field(default_factory=Problems)

    @property
    def ids(self) -> list[Id]:
        """The trials with an answer."""
        return list(self.boxes)


def read_expressions(file: Path) -> Expressions:
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
    found: dict[Id, Expression] = {}
    log = ProblemLog(file)
    for position, record in enumerate(annotations):
        trials = record.get("sentences") if isinstance(record, Mapping) else None
        for trial in trials if isinstance(trials, list) else [record]:
            key = id_of(trial, _KEYS, "annotation", position, log)
            if key is None:
                continue
            box = box_of(record.get("bbox"))
            if key in found:
                log.add("duplicate", "annotation", key)
            elif box is None or box[2] <= 0 or box[3] <= 0:
                log.add("malformed", "annotation", key, "bbox is not [x, y, width, height] with an area")
            else:
                image = record.get("image_id")
                size = _size(record) or sizes.get(image if is_id(image) else None)
                found[key] = Expression(image if is_id(image) else None, box, size, _sentence(trial))
    if not found:
        raise UserError(f"{file}: no annotation with a box in it; is it the right file?")
    return Expressions(file, found, log.problems())


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


def read_boxes(file: Path, expressions: Expressions, space: Space | None = None) -> BoxResults:
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
        raise UserError(f"{file}: coordinates is none of {', '.join(SPACES)}; correct it")
    if declared is not None and space is not None and declared != space:
        raise UserError(f"{file}: its coordinates are declared as {declared}, not {space}; drop --coordinates")
    found, log = BoxResults(file, space or declared or "pixels"), ProblemLog(file)
    unknown: list[Id] = []
    for position, entry in enumerate(entries):
        key = id_of(entry, _KEYS, "entry", position, log)
        if key is None:
            continue
        if key in found.boxes:
            log.add("duplicate", "box of", key)
        elif key not in expressions.trials:
            unknown.append(key)
        else:
            found.boxes[key] = _box_of_answer(entry, key, expressions, found)
    hint = hint_of_types(expressions.trials, unknown)
    log.add_all("unknown", "annotation", unknown, hint or f"not in {expressions.file}")
    log.add_all("missing", "box of", [key for key in expressions.trials if key not in found.boxes])
    if not found.boxes:
        raise UserError(f"{file}: no box of any annotation of {expressions.file}{f' ({hint})' if hint else ''}")
    return replace(found, boxes={key: found.boxes[key] for key in in_order(found.boxes)}, problems=log.problems())


def _box_of_answer(entry: Mapping[str, Any], key: Id, expressions: Expressions, found: BoxResults) -> Box | None:
    text = entry.get("text", entry.get("answer"))
    if entry.get("bbox") is not None or not isinstance(text, str):
        return box_of(entry.get("bbox"))
    size = expressions.trials[key].size
    if size is None and "<loc_" in text:
        raise UserError(
            f"{expressions.file}: annotation {printable(key)} has no image width and height, which location tokens need"
        )
    boxes = boxes_from_text(text, *size) if size else []
    if not boxes:
        return None
    found.in_pixels.add(key)
    x1, y1, x2, y2 = boxes[0]
    return box_of([x1, y1, x2 - x1, y2 - y1])
