"""What a benchmark consists of: the image files and the texts that its public JSON lists."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.base.artifact import Artifact
from stages.base.contract import Inputs, UserError
from stages.base.external_files import find_in_worlds, is_system_file
from stages.formats.vqa import Question, parse_questions
from stages.imaging.formats import FORMATS
from stages.index.config import BenchmarkImages

#: What files of the decoders' formats are called: by the extensions that raw shards use, and others in use.
_EXTENSIONS = (
    *(f".{it.extension}" for it in FORMATS.values()),
    ".jpeg",
    ".tiff",
    ".jpe",
    ".jfif",
    ".j2k",
    ".pgm",
    ".pbm",
)


@dataclass(frozen=True)
class HeldOut:
    """A benchmark's images and texts."""

    folder: str
    """Folder or URL below which the images are."""
    files: list[str]
    """Names of the images below the folder, sorted."""
    texts: list[str]
    """Captions or questions."""
    sha256: Mapping[str, str]
    """Digest of files where it is known without reading them."""


def held_out(name: str, where: BenchmarkImages, inputs: Inputs) -> HeldOut:
    """What benchmark `name` consists of.

    Raises UserError for a benchmark without images, for a listed image that is not there, and for a malformed list.
    """
    home = find_in_worlds(where.images, inputs)
    if home is not None:
        artifact, below = home
        folder = artifact.url
        prefix = f"{below.strip('/')}/" if below.strip("/") else ""
        digests = {file["name"]: file["sha256"] for file in artifact.manifest["files"]}
        there = {file for file in digests if file.startswith(prefix)}
    else:
        folder, prefix, digests, there = where.images, "", {}, _listing(name, where.images)
    lists = [(text, _read(name, text, inputs)) for text in where.texts]
    texts = [text for file, content in lists for text in _texts(name, file, content, where)]
    if where.image_pattern is None:
        files = {file for file in there if file.lower().endswith(_EXTENSIONS)}
        if not files:
            raise UserError(f"benchmarks.{name}: no image in {where.images}; name the folder that holds them")
    else:
        listed = [image for file, content in lists for image in _images(name, file, content, where)]
        try:
            files = {prefix + where.image_pattern.format(**image) for image in listed}
        except (KeyError, IndexError, ValueError):
            raise UserError(
                f"benchmarks.{name}.image_pattern={where.image_pattern}: write it with {{image_id}} or {{file_name}}"
            ) from None
        if not files:
            raise UserError(f"benchmarks.{name}: its lists name no image with a question or reference; mend them")
        missing = min(files - there, default=None)
        if missing is not None:
            raise UserError(
                f"benchmarks.{name}: it lists {missing}, which is not in {where.images}; get it, or mend the pattern"
            )
    return HeldOut(folder, sorted(files), texts, digests)


def _listing(name: str, folder: str) -> set[str]:
    if "://" not in folder:
        if not os.path.isdir(folder):
            raise UserError(f"benchmarks.{name}: no folder {folder}; name the one that holds its images")
        files = (file.relative_to(folder).as_posix() for file in Path(folder).rglob("*") if file.is_file())
        return {file for file in files if not is_system_file(file)}
    import fsspec

    store, root = fsspec.core.url_to_fs(folder)
    paths = (path.removeprefix(root).lstrip("/") for path in store.find(root))
    return {path for path in paths if not is_system_file(path)}


def _read(name: str, file: str, inputs: Inputs) -> dict[str, Any]:
    artifact, inside = find_in_worlds(file, inputs) or (Artifact(os.path.dirname(file)), os.path.basename(file))
    try:
        with artifact.open(inside) as opened:
            content = json.loads(opened.read())
    except FileNotFoundError:
        raise UserError(f"benchmarks.{name}: no file {file}; put the benchmark's list there or name it") from None
    except ValueError as error:
        raise UserError(f"benchmarks.{name}: {file} is not JSON ({error}); get the file again") from None
    if not isinstance(content, dict):
        raise UserError(f"benchmarks.{name}: {file} has neither questions nor images in it; is it the right file?")
    return content


def _texts(name: str, file: str, content: Mapping[str, Any], where: BenchmarkImages) -> Iterator[str]:
    """Questions, or reference captions of the split."""
    if "questions" in content:
        for question in _questions(name, file, content, images_required=False):
            yield question.text
    elif _is_karpathy(content):
        for image in _split(name, file, content, where):
            for sentence in image["sentences"]:
                yield str(_field(name, file, sentence, "raw"))
    else:
        for row in _records(name, file, content, "annotations"):
            yield str(_field(name, file, row, "caption"))


def _images(name: str, file: str, content: Mapping[str, Any], where: BenchmarkImages) -> Iterator[dict[str, Any]]:
    """Keys of the pattern for each image that has a question or a reference: the ones that are scored."""
    if "questions" in content:
        for question in _questions(name, file, content, images_required=True):
            yield {"image_id": question.image_id, "file_name": question.file_name}
        return
    karpathy = _is_karpathy(content)
    known = None
    if not karpathy:
        annotations = _records(name, file, content, "annotations")
        known = {_field(name, file, annotation, "image_id") for annotation in annotations}
    for image in _split(name, file, content, where):
        key = next((key for key in ("id", "cocoid", "imgid") if key in image), None)
        if key is None:
            raise UserError(f"benchmarks.{name}: an image in {file} has no id; is it the right file?")
        if image["sentences"] if known is None else image[key] in known:
            yield {"image_id": image[key], "file_name": str(image.get("file_name") or image.get("filename") or "")}


def _questions(name: str, file: str, content: Mapping[str, Any], images_required: bool) -> list[Question]:
    """The questions of a list in VQA's format, duplicates included: they do no harm to what is held out."""
    try:
        questions = parse_questions(content, file, images_required)
        questions.problems.without("duplicate").raise_if_any()
    except UserError as error:
        raise UserError(f"benchmarks.{name}: {error}") from None
    return questions.records


def _is_karpathy(content: Mapping[str, Any]) -> bool:
    images = content.get("images")
    return isinstance(images, list) and bool(images) and isinstance(images[0], dict) and "sentences" in images[0]


def _split(name: str, file: str, content: Mapping[str, Any], where: BenchmarkImages) -> list[Mapping[str, Any]]:
    images = _records(name, file, content, "images")
    if not _is_karpathy(content):
        return images
    chosen = [image for image in images if image.get("split") == where.karpathy_split]
    if not chosen:
        raise UserError(f"benchmarks.{name}: no image of split {where.karpathy_split!r} in {file}; name another split")
    for image in chosen:
        _field(name, file, image, "sentences")
    return chosen


def _records(name: str, file: str, content: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    records = content.get(key)
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise UserError(f"benchmarks.{name}: {file} has no list of {key!r}; is it the right file?")
    return records


def _field(name: str, file: str, record: Mapping[str, Any], key: str) -> Any:
    if key not in record:
        raise UserError(f"benchmarks.{name}: a record in {file} has no {key!r}; is it the right file?")
    return record[key]
