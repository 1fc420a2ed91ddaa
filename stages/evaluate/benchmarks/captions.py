"""Caption benchmarks in COCO's or Karpathy's format: COCO, NoCaps, Flickr30k."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from stages.contract import UserError
from stages.evaluate.benchmarks.base import Benchmark, Result
from stages.evaluate.benchmarks.example import Example, Id, read_records, required
from stages.evaluate.config import CaptionBenchmark
from stages.evaluate.metrics.captions.score import TOKENIZATION, score


class CaptionFiles(Benchmark):
    """One caption to be written per image."""

    @cached_property
    def _file(self) -> Path:
        assert isinstance(self.config.benchmark, CaptionBenchmark)
        return self.locate(self.config.benchmark.references)

    @cached_property
    def _images(self) -> list[Mapping[str, Any]]:
        images = read_records(self._file, "images")
        if images and "sentences" in images[0]:
            assert isinstance(self.config.benchmark, CaptionBenchmark)
            return [image for image in images if image.get("split") == self.config.benchmark.karpathy_split]
        return images

    def examples(self) -> list[Example]:
        """One per image that has references, in file order."""
        known = self._references()
        examples = []
        for row, image in enumerate(self._images):
            image_id = _image_id(image, self._file, row)
            if image_id in known:
                name = str(image.get("file_name") or image.get("filename") or "")
                examples.append(Example(image_id, image_id, name, ""))
        if not examples:
            raise UserError(f"{self._file}: no image in it has a reference caption; is it the right file or split?")
        return examples

    def _references(self) -> dict[Id, list[str]]:
        found: dict[Id, list[str]] = {}
        if self._images and "sentences" in self._images[0]:
            for row, image in enumerate(self._images):
                sentences = [str(required(s, "raw", self._file, row)) for s in image["sentences"]]
                if sentences:
                    found[_image_id(image, self._file, row)] = sentences
            return found
        for row, annotation in enumerate(read_records(self._file, "annotations")):
            caption = str(required(annotation, "caption", self._file, row))
            found.setdefault(required(annotation, "image_id", self._file, row), []).append(caption)
        return found

    def score(self, examples: Sequence[Example], written: Mapping[Id, str]) -> Result:
        """Corpus scores, and CIDEr per domain where images have one."""
        known = self._references()
        references = [known[example.id] for example in examples]
        found = score([written[example.id] for example in examples], references, self.config.caption_metrics)
        scores: dict[str, Any] = {**found.corpus}
        domains = {_image_id(image, self._file, row): image.get("domain") for row, image in enumerate(self._images)}
        labels = [domains.get(example.id) for example in examples]
        if any(labels) and "CIDEr" in found.per_image:
            scores["CIDEr_per_domain"] = _per_domain(labels, found.per_image["CIDEr"])
        if found.unavailable:
            scores["unavailable"] = found.unavailable
        return Result(
            predictions=[{"image_id": example.id, "caption": written[example.id]} for example in examples],
            scores=scores,
            protocol={
                "tokenization": TOKENIZATION,
                "references": sum(map(len, references)),
                "document_frequencies": f"over all {len(examples)} images",
            },
            per_sample={
                "image_id": [str(example.id) for example in examples],
                "prediction": [written[example.id] for example in examples],
                "references": references,
                **found.per_image,
            },
        )


def _image_id(image: Mapping[str, Any], file: Path, row: int) -> Id:
    for name in ("id", "cocoid", "imgid"):
        if name in image:
            found: Id = image[name]
            return found
    raise UserError(f"{file}: image {row} has no id; is it the right file?")


def _per_domain(labels: Sequence[Any], values: Sequence[float]) -> dict[str, float]:
    # Means of scores whose document frequencies come from the whole benchmark, as NoCaps' server computes them.
    grouped: dict[str, list[float]] = {}
    for label, value in zip(labels, values, strict=True):
        grouped.setdefault(str(label), []).append(value)
    return {label: sum(grouped[label]) / len(grouped[label]) for label in sorted(grouped)}
