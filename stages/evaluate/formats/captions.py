"""Reference captions (COCO's annotations, NoCaps' with domains, Karpathy's splits) and results (COCO's)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stages.base.contract import UserError
from stages.evaluate.formats.json_file import id_of, read_json, records_under
from stages.evaluate.formats.problems import Id, Problems
from stages.evaluate.formats.texts import read_texts

_IMAGE_KEYS = ("id", "cocoid", "imgid")


@dataclass
class References:
    """The captions that people wrote."""

    file: Path
    captions: dict[Id, list[str]] = field(default_factory=dict)
    """Image -> its captions in the file's order, at least one; images in the file's order."""
    domains: dict[Id, str] = field(default_factory=dict)
    """Image -> NoCaps' domain, for the images that have one."""
    names: dict[Id, str] = field(default_factory=dict)
    """Image -> file name, for the images that have one."""


def read_references(file: Path, problems: Problems, karpathy_split: str = "test") -> References:
    """`images` and `annotations: [{image_id, caption}]`, or Karpathy's `images: [{sentences: [{raw}], split}]`.

    Raises UserError for a file of another kind or without any caption.
    """
    content = read_json(file)
    found = References(file)
    images = content.get("images") if isinstance(content, dict) else None
    if isinstance(images, list) and images and isinstance(images[0], dict) and "sentences" in images[0]:
        _read_karpathy(images, karpathy_split, found, problems)
    else:
        annotations = records_under(content, "annotations", file)
        _read_images(images if isinstance(images, list) else [], found, problems)
        _read_annotations(annotations, bool(images), found, problems)
    if not any(found.captions.values()):
        raise UserError(f"{file}: no reference caption in it; is it the right file or split?")
    empty = [image for image, captions in found.captions.items() if not captions]
    for image in empty:
        problems.add("missing", file, "reference of image", image)
        del found.captions[image]
    return found


def _read_images(images: list[Any], found: References, problems: Problems) -> None:
    for place, image in enumerate(images):
        image_id = id_of(image, _IMAGE_KEYS, found.file, "image", place, problems)
        if image_id is None:
            continue
        if image_id in found.captions:
            problems.add("duplicate", found.file, "image", image_id)
            continue
        _describe(image_id, image, found)


def _describe(image_id: Id, image: Mapping[str, Any], found: References) -> None:
    found.captions[image_id] = []
    name = image.get("file_name") or image.get("filename")
    if isinstance(name, str):
        found.names[image_id] = name
    if isinstance(image.get("domain"), str):
        found.domains[image_id] = image["domain"]


def _read_annotations(annotations: list[Any], listed: bool, found: References, problems: Problems) -> None:
    seen: set[Any] = set()
    for place, annotation in enumerate(annotations):
        image_id = id_of(annotation, ("image_id",), found.file, "annotation", place, problems)
        if image_id is None:
            continue
        own = annotation.get("id")
        if isinstance(own, int | str):
            if own in seen:
                problems.add("duplicate", found.file, "annotation", own)
                continue
            seen.add(own)
        if listed and image_id not in found.captions:
            problems.add("unknown", found.file, "reference of image", image_id, "not among its images")
            continue
        _add(found, image_id, annotation.get("caption"), place, problems)


def _add(found: References, image_id: Id, caption: Any, place: int, problems: Problems) -> None:
    if not isinstance(caption, str):
        problems.add("malformed", found.file, "annotation number", place, "no caption that is a string")
        return
    if not caption.strip():
        problems.add("empty", found.file, "reference of image", image_id)
    found.captions.setdefault(image_id, []).append(caption)


def _read_karpathy(images: list[Any], split: str, found: References, problems: Problems) -> None:
    for place, image in enumerate(images):
        image_id = id_of(image, ("cocoid", "imgid", "id"), found.file, "image", place, problems)
        if image_id is None or image.get("split") != split:
            continue
        if image_id in found.captions:
            problems.add("duplicate", found.file, "image", image_id)
            continue
        _describe(image_id, image, found)
        sentences = image.get("sentences")
        for sentence in sentences if isinstance(sentences, list) else []:
            _add(found, image_id, sentence.get("raw") if isinstance(sentence, dict) else None, place, problems)


def read_candidates(file: Path, references: References, problems: Problems) -> dict[Id, str]:
    """COCO's results, `[{image_id, caption}]`: image -> caption; see :func:`read_texts`. Raises UserError."""
    return read_texts(file, "image_id", "caption", "image", references.captions, references.file, problems)
