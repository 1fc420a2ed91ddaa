"""Captions: references (COCO's annotations, NoCaps' with domains, Karpathy's splits) and results (COCO's)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from stages.base.contract import UserError
from stages.formats.json_file import TextResults, id_of, read_json, read_text_results, records_under
from stages.formats.problems import Id, ProblemLog, Problems

_IMAGE_KEYS = ("id", "cocoid", "imgid")


@dataclass(frozen=True)
class References:
    """The reference captions of a file."""

    file: Path
    captions: dict[Id, list[str]] = field(default_factory=dict)
    """Image -> its captions in the file's order, at least one; images in the file's order."""
    domains: dict[Id, str] = field(default_factory=dict)
    """Image -> NoCaps' domain, for the images that have one."""
    names: dict[Id, str] = field(default_factory=dict)
    """Image -> file name, for the images that have one."""
    problems: Problems = field(default_factory=Problems)


def read_references(file: Path, karpathy_split: str = "test") -> References:
    """`images` and `annotations: [{image_id, caption}]`, or Karpathy's `images: [{sentences: [{raw}], split}]`.

    Raises UserError for a file of another kind or without any caption.
    """
    content = read_json(file)
    found, log = References(file), ProblemLog(file)
    images = content.get("images") if isinstance(content, dict) else None
    if isinstance(images, list) and images and isinstance(images[0], dict) and "sentences" in images[0]:
        _read_karpathy(images, karpathy_split, found, log)
    else:
        annotations = records_under(content, "annotations", file)
        _read_images(images if isinstance(images, list) else [], found, log)
        _read_annotations(annotations, bool(images), found, log)
    if not any(found.captions.values()):
        raise UserError(f"{file}: no reference caption in it; is it the right file or split?")
    for image in [image for image, captions in found.captions.items() if not captions]:
        log.add("missing", "reference of image", image)
        del found.captions[image]
    return replace(found, problems=log.problems())


def _read_images(images: list[Any], found: References, log: ProblemLog) -> None:
    for position, image in enumerate(images):
        image_id = id_of(image, _IMAGE_KEYS, "image", position, log)
        if image_id is None:
            continue
        if image_id in found.captions:
            log.add("duplicate", "image", image_id)
            continue
        _add_image(image_id, image, found)


def _add_image(image_id: Id, image: Mapping[str, Any], found: References) -> None:
    found.captions[image_id] = []
    name = image.get("file_name") or image.get("filename")
    if isinstance(name, str):
        found.names[image_id] = name
    if isinstance(image.get("domain"), str):
        found.domains[image_id] = image["domain"]


def _read_annotations(annotations: list[Any], images_listed: bool, found: References, log: ProblemLog) -> None:
    seen: set[Any] = set()
    for position, annotation in enumerate(annotations):
        image_id = id_of(annotation, ("image_id",), "annotation", position, log)
        if image_id is None:
            continue
        own = annotation.get("id")
        if isinstance(own, int | str):
            if own in seen:
                log.add("duplicate", "annotation", own)
                continue
            seen.add(own)
        if images_listed and image_id not in found.captions:
            log.add("unknown", "reference of image", image_id, "not among its images")
            continue
        _add_caption(image_id, annotation.get("caption"), position, found, log)


def _add_caption(image_id: Id, caption: Any, position: int, found: References, log: ProblemLog) -> None:
    if not isinstance(caption, str):
        log.add("malformed", "annotation number", position, "no caption that is a string")
        return
    if not caption.strip():
        log.add("empty", "reference of image", image_id)
    found.captions.setdefault(image_id, []).append(caption)


def _read_karpathy(images: list[Any], split: str, found: References, log: ProblemLog) -> None:
    for position, image in enumerate(images):
        image_id = id_of(image, ("cocoid", "imgid", "id"), "image", position, log)
        if image_id is None or image.get("split") != split:
            continue
        if image_id in found.captions:
            log.add("duplicate", "image", image_id)
            continue
        _add_image(image_id, image, found)
        sentences = image.get("sentences")
        for sentence in sentences if isinstance(sentences, list) else []:
            raw = sentence.get("raw") if isinstance(sentence, dict) else None
            _add_caption(image_id, raw, position, found, log)


def read_candidates(file: Path, references: References) -> TextResults:
    """COCO's results, `[{image_id, caption}]`; see :func:`read_text_results`. Raises UserError."""
    return read_text_results(file, "image_id", "caption", "image", references.captions, references.file)
