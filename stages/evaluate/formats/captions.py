"""Reference captions (COCO's annotations, NoCaps' with domains, Karpathy's splits) and results (COCO's)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stages.contract import UserError
from stages.evaluate.formats.json_file import hint_of_types, id_of, in_order, read_json, read_results, records_under
from stages.evaluate.formats.problems import Id, Problems

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
    """A results file, `[{image_id, caption}]`: image -> caption, images in an order of their own.

    Of several captions of an image the first counts; an empty one is scored as such. Raises UserError.
    """
    found: dict[Id, str] = {}
    unknown: list[Id] = []
    for place, entry in enumerate(read_results(file, '{"image_id": ..., "caption": ...}')):
        image_id = id_of(entry, ("image_id",), file, "entry", place, problems)
        if image_id is None:
            continue
        caption = entry.get("caption")
        if not isinstance(caption, str):
            problems.add("malformed", file, "entry number", place, "no caption that is a string")
        elif image_id in found:
            problems.add("duplicate", file, "caption of image", image_id)
        elif image_id not in references.captions:
            unknown.append(image_id)
        else:
            if not caption.strip():
                problems.add("empty", file, "caption of image", image_id)
            found[image_id] = caption
    hint = hint_of_types(references.captions, unknown)
    problems.add_all("unknown", file, "image", unknown, hint or f"not in {references.file}")
    missing = [image_id for image_id in references.captions if image_id not in found]
    problems.add_all("missing", file, "caption of image", missing)
    if not found:
        raise UserError(f"{file}: no caption of any image of {references.file}{f' ({hint})' if hint else ''}")
    return {image_id: found[image_id] for image_id in in_order(found)}
