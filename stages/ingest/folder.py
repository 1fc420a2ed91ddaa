"""A plain folder: images, and beside each a text or JSON file of the same name."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from stages.base.external_files import SCHEME
from stages.ingest.config import SourceConfig
from stages.ingest.encodings import decoded
from stages.ingest.files import InputFile, relative
from stages.ingest.source import Item, Pair, Reject, Source, Unit

_LONGEST = 16 * 1024 * 1024  # bytes of a JSON file, or of a text file with many captions
_MARK = 3  # bytes of a byte-order mark
_MAGIC = frozenset("*?[")
_ARCHIVES = ("zip", "tar", "tgz", "gz", "bz2", "xz", "zst", "7z", "rar")


class FolderConfig(SourceConfig):
    """`kind: folder`. `paths` are the images and the files beside them: folders (with all below them) or globs."""

    captions: Literal["file", "lines", "none"] = "file"
    """Whether a text file is one caption, or every line of it that is not blank is one; `none`: an image-only source,
    whose text files are not read, nor are the captions in its JSON files."""
    caption_keys: Annotated[tuple[str, ...], Field(min_length=1)] = ("caption", "text")
    """Keys of a JSON file that may hold the caption, where there is no text file; the first it has is taken."""
    extensions: tuple[str, ...] = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff")
    """Endings of images; what they hold is for the download to determine."""

    @model_validator(mode="before")
    @classmethod
    def _default_images(cls, values: Any) -> Any:
        """`images` is the folder that all `paths` share, unless it is given."""
        if not isinstance(values, Mapping) or values.get("images") or not values.get("paths"):
            return values
        paths = values["paths"]
        if isinstance(paths, str) or not all(isinstance(path, str) for path in paths):
            return values  # a mistake that the schema reports
        return {**values, "images": _shared_folder(paths)}


class Folder(Source[FolderConfig]):
    """One pair per image, or per line of its text file. Further keys of a JSON file are kept under `meta`.

    Digests there (img2dataset writes them) are of files before they were resized, so they are kept as
    `listed_sha256` and `listed_md5`, which nothing checks.
    """

    Config: ClassVar[type[SourceConfig]] = FolderConfig

    def splits(self, files: Sequence[InputFile]) -> list[Unit]:
        """Groups of files of the same name, `files_per_partition` of them each."""
        groups = [tuple(group) for _, group in groupby(sorted(files, key=_stem_first), key=_stem)]
        step = self.settings.files_per_partition
        return [
            Unit(tuple(file for group in groups[start : start + step] for file in group))
            for start in range(0, len(groups), step)
        ]

    def read(self, unit: Unit) -> Iterator[Item]:
        """One item per image or caption, and one per file that belongs to no image."""
        for _, group in groupby(unit.files, key=_stem):
            yield from self._group(list(group))

    def _group(self, files: Sequence[InputFile]) -> Iterator[Pair | Reject]:
        beside = {_ending(file): file for file in files if _ending(file) in ("txt", "json")}
        images = [file for file in files if _ending(file) in self.config.extensions]
        for file in files:
            if file not in images and (not images or file not in beside.values()):
                stray = "archive" if _ending(file) in _ARCHIVES else "not_an_image_file"
                yield Reject(file, "no_image" if file in beside.values() else stray)
        if not images:
            return
        captions, meta, reason = self._text_beside(beside)
        for image in images:
            path = relative(image, self.image_root())
            if path is None:
                yield Reject(image, "bad_path")
            elif reason:
                yield Reject(image, reason)
            else:
                for caption in captions or [""]:
                    yield Pair(image, caption, path=path, meta=meta)

    def _text_beside(self, beside: Mapping[str, InputFile]) -> tuple[list[str], dict[str, Any], str | None]:
        """Captions and further facts of the files beside an image, or why they cannot be read."""
        meta: dict[str, Any] = {}
        caption = None
        if "json" in beside:
            try:
                facts = json.loads(_read(beside["json"], _LONGEST))
            except (ValueError, RecursionError):
                return [], {}, "not_json"
            if not isinstance(facts, dict):
                return [], {}, "not_an_object"
            key = next((key for key in self.config.caption_keys if key in facts), "")
            caption = facts.pop(key, None)
            meta = {f"listed_{key}" if key in ("sha256", "md5") else key: value for key, value in facts.items()}
        if self.config.image_only:
            return [], meta, None
        if "txt" in beside:
            content = _read(beside["txt"], 2 * self._longest() + 1)
            wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
            if len(content) > self._longest() * (2 if wide else 1):
                return [], {}, "caption_too_long"
            try:
                caption = decoded(content)
            except UnicodeDecodeError:
                return [], {}, "not_utf8"
            if self.config.captions == "lines":
                ends = "\n" if "\n" in caption else "\r"
                return [line.strip() for line in caption.split(ends) if line.strip()], meta, None
            caption = caption.strip()
        if caption is not None and not isinstance(caption, str):
            return [], {}, "not_text"
        return [caption] if caption else [], meta, None

    def _longest(self) -> int:
        return _LONGEST if self.config.captions == "lines" else self.settings.max_caption_bytes + _MARK


def _read(file: InputFile, most: int) -> bytes:
    with file.open() as handle:
        return handle.read(most)


def _stem(file: InputFile) -> str:
    folder, _, base = file.name.rpartition("/")
    return f"{folder}/{base.rpartition('.')[0] or base}"


def _stem_first(file: InputFile) -> tuple[str, str]:
    return _stem(file), file.name


def _ending(file: InputFile) -> str:
    return file.name.rsplit("/", 1)[-1].rpartition(".")[2].lower()


def _shared_folder(paths: Sequence[str]) -> str:
    """The folder above everything that folders and globs stand for, without looking."""
    fixed = []
    for path in paths:
        parts = path.rstrip("/").split("/")
        magic = next((n for n, part in enumerate(parts) if _MAGIC & set(part)), None)
        # Without a pattern it is a folder, unless it looks like a file.
        fixed.append(parts[: len(parts) - ("." in parts[-1][1:]) if magic is None else magic])
    shared = []
    for level in zip(*fixed, strict=False):
        if len(set(level)) > 1:
            break
        shared.append(level[0])
    if any(path.startswith(SCHEME) for path in paths):
        if not shared:
            raise ValueError("paths have no folder in common; give images, the folder of them all")
        return "/".join(shared) if shared[1:] else f"{shared[0]}/."
    return "/".join(shared) or ("/" if paths[0].startswith("/") else ".")
