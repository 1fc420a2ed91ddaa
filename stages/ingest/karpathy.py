"""Karpathy's splits of COCO, Flickr30k and Flickr8k (`dataset_coco.json` and its like)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from stages.ingest.config import SourceConfig
from stages.ingest.files import InputFile
from stages.ingest.source import Columns, Item, Pair, Reject, Source, Unit
from stages.ingest.text_files import read_document


class KarpathyConfig(SourceConfig):
    """`kind: karpathy`. With `images` set, files are taken from that folder as `filepath/filename` (`filename` where
    the file says no `filepath`); else from `url` of the entry, or `url_prefix` followed by the same path."""

    splits: tuple[str, ...] = ("train", "restval")
    """Splits to take; captions of any other are rejected as `other_split`. Everyone trains on `train` and `restval`
    (82,783 + 30,504 images of COCO) and scores on `val` and `test` (5,000 each)."""
    url_prefix: str | None = None
    """Address below which the images lie, e.g. `http://images.cocodataset.org`."""


class Karpathy(Source[KarpathyConfig]):
    """One pair per sentence, taken as `raw`."""

    Config: ClassVar[type[SourceConfig]] = KarpathyConfig

    def splits(self, files: Sequence[InputFile]) -> list[Unit]:
        """One unit per file: JSON has to be parsed whole."""
        return [Unit((file,)) for file in files]

    def read(self, unit: Unit) -> Iterator[Item]:
        """One item per sentence, one for an image without any. Raises BadFile when the file is not such JSON."""
        (file,) = unit.files
        images = read_document(file, ("images",), "Karpathy's split JSON")["images"]
        first = next((image for image in images if isinstance(image, dict)), {})
        yield Columns(file, {f"images[].{name}": type(value).__name__ for name, value in first.items()})
        for image in images:
            if not isinstance(image, dict):
                yield Reject(file, "not_an_object")
                continue
            sentences = image.get("sentences")
            for sentence in sentences if isinstance(sentences, list) and sentences else [None]:
                yield self._item(file, image, sentence)

    def _item(self, file: InputFile, image: dict[str, Any], sentence: Any) -> Pair | Reject:
        if image.get("split") not in self.config.splits:
            return Reject(file, "other_split")
        caption = sentence.get("raw") if isinstance(sentence, dict) else None
        if caption is None:
            return Reject(file, "no_caption")
        parts = [image.get("filepath"), image.get("filename")]
        if not isinstance(caption, str) or not all(part is None or isinstance(part, str) for part in parts):
            return Reject(file, "not_text")
        path = self.local_image("/".join(part for part in parts if part)) if parts[1] else None
        if path is None and parts[1]:
            return Reject(file, "bad_path")
        meta: dict[str, Any] = {name: image[name] for name in ("imgid", "cocoid", "split") if name in image}
        meta["sentid"] = sentence.get("sentid")
        if self.config.images is not None:
            return Reject(file, "no_path") if path is None else Pair(file, caption, path=path, meta=meta)
        if isinstance(image.get("url"), str):
            return Pair(file, caption, url=image["url"], meta=meta)
        if self.config.url_prefix is None or path is None:
            return Reject(file, "no_url")
        return Pair(file, caption, url=f"{self.config.url_prefix.rstrip('/')}/{path}", meta=meta)
