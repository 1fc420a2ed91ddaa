"""COCO's caption annotations (`captions_train2017.json` and its like)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from stages.ingest.config import SourceConfig
from stages.ingest.files import InputFile
from stages.ingest.source import Columns, Item, Pair, Reject, Source, Unit
from stages.ingest.text_files import by_id, known, read_document

_USED_KEYS = ("file_name", "coco_url", "license")


class CocoConfig(SourceConfig):
    """`kind: coco`. With `images` set, files are taken from that folder by `file_name`, else from `coco_url`."""


class Coco(Source[CocoConfig]):
    """One pair per annotation: an image's five captions are five pairs of one image."""

    Config: ClassVar[type[SourceConfig]] = CocoConfig

    def splits(self, files: Sequence[InputFile]) -> list[Unit]:
        """One unit per file: JSON has to be parsed whole."""
        return [Unit((file,)) for file in files]

    def read(self, unit: Unit) -> Iterator[Item]:
        """One item per annotation. Raises BadFile when the file is not COCO caption JSON."""
        (file,) = unit.files
        content = read_document(file, ("images", "annotations"), "COCO caption JSON")
        images = by_id(content["images"])
        licenses = {id: entry.get("url") for id, entry in by_id(content.get("licenses", [])).items()}
        yield Columns(file, self._columns(content))
        for annotation in content["annotations"]:
            yield self._item(file, annotation, images, licenses)

    @staticmethod
    def _columns(content: dict[str, list[Any]]) -> dict[str, str]:
        first = {key: next((e for e in content[key] if isinstance(e, dict)), {}) for key in ("images", "annotations")}
        return {
            f"{key}[].{name}": type(value).__name__ for key, entry in first.items() for name, value in entry.items()
        }

    def _item(
        self, file: InputFile, annotation: Any, images: dict[Any, Any], licenses: dict[Any, Any]
    ) -> Pair | Reject:
        if not isinstance(annotation, dict):
            return Reject(file, "not_an_object")
        caption = annotation.get("caption")
        if caption is None:
            return Reject(file, "no_caption")
        image = known(images, annotation.get("image_id"))
        if image is None:
            return Reject(file, "no_such_image")
        place = image.get("coco_url" if self.config.images is None else "file_name")
        if not isinstance(caption, str) or not (place is None or isinstance(place, str)):
            return Reject(file, "not_text")
        meta = {
            **{f"image_{key}" if key == "id" else key: v for key, v in image.items() if key not in _USED_KEYS},
            "annotation_id": annotation.get("id"),
        }
        named = known(licenses, image.get("license"))
        license = named if isinstance(named, str) else None
        if self.config.images is None:
            return Pair(file, caption, url=place or "", license=license, meta=meta)
        path = self.local_image(place or "")
        return Reject(file, "bad_path") if path is None else Pair(file, caption, path=path, license=license, meta=meta)
