"""easy-vqa's coloured shapes: what their questions reveal about each image, and captions that state it."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from stages.world.plugin import package_folder

Split = Literal["train", "test"]

COLOURS = frozenset({"black", "blue", "brown", "gray", "green", "red", "teal", "yellow"})
SHAPES = frozenset({"circle", "rectangle", "triangle"})

# Worded so that lid.176 takes every one of them, with every colour and shape, for English: the bare "a black circle"
# passes for Persian, "a blue circle" for German.
_BOTH = (
    "there is a {colour} {shape} in the image",
    "the image shows a {colour} {shape}",
    "the shape is a {colour} {shape}",
    "a picture of a {colour} {shape}",
    "one {colour} {shape} on a plain background",
    "this is a {colour} {shape}",
    "the {shape} in this picture is {colour}",
    "the color of the {shape} is {colour}",
    "a small picture with a {colour} {shape} in it",
)
_SHAPE = (
    "there is a {shape} in the image",
    "the image shows a {shape}",
    "the shape in the image is a {shape}",
    "a picture of a {shape}",
    "this is a picture of one {shape}",
)
_COLOUR = (
    "there is a {colour} shape in the image",
    "the image shows a {colour} shape",
    "a picture of a {colour} shape",
    "the color of the shape is {colour}",
)
_NEITHER = (
    "there is a single shape in the image",
    "a picture of one shape",
    "the image shows one shape on a plain background",
)


@dataclass(frozen=True)
class ShapeQuestion:
    """One question on one image, with its one answer."""

    image_id: int
    text: str
    answer: str


@dataclass(frozen=True)
class Facts:
    """What an image's questions reveal of it; None where they leave it open."""

    colour: str | None
    shape: str | None


def questions(split: Split, images: int) -> list[ShapeQuestion]:
    """The questions on the first `images` images of a split, in the package's order."""
    listed = json.loads((_folder(split) / "questions.json").read_text("utf-8"))
    return [ShapeQuestion(image_id, text, answer) for text, answer, image_id in listed if image_id < images]


def copy_images(split: Split, images: int, out: Path) -> None:
    """Copy `<image_id>.png` (64x64 RGB) of the first `images` images into a folder."""
    out.mkdir(parents=True)
    for image_id in range(images):
        shutil.copyfile(image(split, image_id), out / f"{image_id}.png")


def image(split: Split, image_id: int) -> Path:
    """The package's own file of one image."""
    return _folder(split) / "images" / f"{image_id}.png"


def facts(questions: Sequence[ShapeQuestion]) -> Facts:
    """Colour and shape of one image from the questions on it, by elimination too.

    "is there not a circle?" - "no" says that there is one; so does "no" to both other shapes.
    """
    has: set[str] = set()
    lacks: set[str] = set()
    for question in questions:
        words = set(question.text.rstrip("?").split())
        if question.answer in ("yes", "no"):
            present = (question.answer == "yes") != bool(words & {"no", "not"})
            (has if present else lacks).update(words)
        else:
            has.update(words, {question.answer})

    def only(kind: frozenset[str]) -> str | None:
        values = kind & has or (kind - lacks if len(kind - lacks) == 1 else frozenset())
        return min(values) if values else None

    return Facts(only(COLOURS), only(SHAPES))


def captions(known: Facts, count: int, rng: random.Random) -> list[str]:
    """Up to `count` different captions of an image."""
    templates: tuple[str, ...]
    if known.colour and known.shape:
        templates = _BOTH
    elif known.shape:
        templates = _SHAPE
    else:
        templates = _COLOUR if known.colour else _NEITHER
    chosen = rng.sample(templates, min(count, len(templates)))
    return [template.format(colour=known.colour, shape=known.shape) for template in chosen]


def _folder(split: Split) -> Path:
    return package_folder("easy_vqa", "easy-vqa==1.0") / "data" / split
