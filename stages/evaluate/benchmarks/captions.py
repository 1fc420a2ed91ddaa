"""Captions of images: COCO's and NoCaps' annotation format, and Karpathy's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from stages.evaluate.benchmarks.base import Benchmark, Result
from stages.evaluate.benchmarks.example import Example
from stages.evaluate.config import CaptionBenchmark
from stages.evaluate.formats.captions import References, read_references
from stages.evaluate.formats.problems import Id, Problems
from stages.evaluate.metrics.captions.suite import CaptionScorer


class CaptionFiles(Benchmark):
    """Captions to be written per image."""

    @cached_property
    def _references(self) -> References:
        benchmark = self.config.benchmark
        assert isinstance(benchmark, CaptionBenchmark)
        problems = Problems()
        found = read_references(self.locate(benchmark.references), problems, benchmark.karpathy_split)
        # An image without references is one that cannot be scored, and nothing is wrong with the others.
        problems.without("missing").settle()
        return found

    def examples(self) -> list[Example]:
        """One per image that has references, in file order."""
        found = self._references
        return [Example(image, image, found.names.get(image, ""), "") for image in found.captions]

    def check(self) -> None:
        """Nothing: the references were read for the examples."""

    def score(self, examples: Sequence[Example], written: Mapping[Id, str]) -> Result:
        """Corpus scores, and CIDEr per domain where images have one."""
        known = self._references
        references = [known.captions[example.id] for example in examples]
        texts = [written[example.id] for example in examples]
        found = CaptionScorer(references, self.config.caption_metrics).score(texts)
        scores: dict[str, Any] = found.total()
        labels = np.array([known.domains.get(example.id, "") for example in examples])
        if known.domains and "cider_d" in found.scored:
            # Document frequencies are those of the whole benchmark, as NoCaps' server takes them.
            scores["CIDEr_per_domain"] = {
                label: found.scored["cider_d"].total(labels == label)["CIDEr"] for label in sorted(set(labels.tolist()))
            }
        if found.unavailable:
            scores["unavailable"] = found.unavailable
        return Result(
            predictions=[{"image_id": example.id, "caption": written[example.id]} for example in examples],
            scores=scores,
            protocol={**found.protocol, "references": sum(map(len, references))},
            per_sample={
                "image_id": [str(example.id) for example in examples],
                "prediction": texts,
                "references": references,
                **found.per_image(),
            },
        )
