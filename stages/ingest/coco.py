"""COCO's caption annotations (`captions_train2017.json` and its like)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from stages.contract import UserError
from stages.ingest.config import SourceConfig
from stages.ingest.files import InputFile
from stages.ingest.source import Pair, Reject, Source, Unit


class CocoConfig(SourceConfig):
    """`kind: coco`. With `images` set, files are taken from that folder by `file_name`, else from `coco_url`."""


class Coco(Source[CocoConfig]):
    """One pair per annotation: an image's five captions are five pairs of one image."""

    Config: ClassVar[type[SourceConfig]] = CocoConfig

    def splits(self, files: Sequence[InputFile]) -> list[Unit]:
        """One unit per file: JSON has to be parsed whole."""
        return [Unit((file,)) for file in files]

    def read(self, unit: Unit) -> Iterator[Pair | Reject]:
        """One item per annotation. Raises UserError when the file is not COCO caption JSON."""
        (file,) = unit.files
        try:
            with file.open() as handle:
                content = json.load(handle)
            images = {image["id"]: image for image in content["images"]}
            annotations = content["annotations"]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"sources.{self.name}: {file.name} is not COCO caption JSON ({type(error).__name__}): it needs"
                " `images` with ids and `annotations`"
            ) from error
        licenses = {entry.get("id"): entry.get("url") for entry in content.get("licenses", [])}
        for annotation in annotations:
            yield self._item(file, annotation, images, licenses)

    def _item(
        self, file: InputFile, annotation: Any, images: dict[Any, Any], licenses: dict[Any, Any]
    ) -> Pair | Reject:
        if not isinstance(annotation, dict) or not isinstance(annotation.get("caption"), str):
            return Reject(file, "no_caption")
        image = images.get(annotation.get("image_id"))
        if image is None:
            return Reject(file, "no_such_image")
        taken = ("file_name", "coco_url", "license")
        meta = {
            **{f"image_{key}" if key == "id" else key: v for key, v in image.items() if key not in taken},
            "annotation_id": annotation.get("id"),
        }
        license = licenses.get(image.get("license"))
        if self.config.images is None:
            url = str(image.get("coco_url") or "")
            return Pair(file, annotation["caption"], url=url, license=license, meta=meta)
        path = self.local_image(str(image.get("file_name") or ""))
        if path is None:
            return Reject(file, "bad_path")
        return Pair(file, annotation["caption"], path=path, license=license, meta=meta)
