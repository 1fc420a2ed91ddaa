"""Captions of images: COCO's and NoCaps' annotation format, and Karpathy's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from stages.evaluate.benchmarks.base import Benchmark, Example, Result
from stages.evaluate.config import CaptionBenchmark
from stages.evaluate.scorers.captions import CaptionOptions, score_captions
from stages.formats.captions import References, read_references
from stages.formats.problems import Id


class CaptionFiles(Benchmark):
    """A caption is generated for every image."""

    @cached_property
    def _references(self) -> References:
        benchmark = self.config.benchmark
        assert isinstance(benchmark, CaptionBenchmark)
        references = read_references(self.locate(benchmark.references), benchmark.karpathy_split)
        # An image without references cannot be scored, but the others can.
        references.problems.without("missing").raise_if_any()
        return references

    def examples(self) -> list[Example]:
        """One per image that has references, in file order."""
        references = self._references
        return [Example(image, image, references.names.get(image, ""), "") for image in references.captions]

    def check(self) -> None:
        """Nothing: the references were read for the examples."""

    def score(self, examples: Sequence[Example], generated: Mapping[Id, str]) -> Result:
        """Corpus scores, and CIDEr per domain where images have one."""
        references = self._references
        captions = {example.id: generated[example.id] for example in examples}
        options = CaptionOptions(self.config.caption_metrics, by_domain=bool(references.domains))
        (scored,) = score_captions(references, [captions], options)
        scores: dict[str, Any] = scored.figures()
        if scored.domains and "CIDEr" in scores:
            scores["CIDEr_per_domain"] = {
                domain: scored.total(rows)["CIDEr"] for domain, rows in scored.domains.items()
            }
        if scored.unavailable:
            scores["unavailable"] = scored.unavailable
        of_examples = [references.captions[example.id] for example in examples]
        return Result(
            predictions=[{"image_id": image, "caption": caption} for image, caption in captions.items()],
            scores=scores,
            protocol={**scored.protocol, "references": sum(map(len, of_examples))},
            per_sample={
                "image_id": [str(example.id) for example in examples],
                "prediction": list(captions.values()),
                "references": of_examples,
                **scored.per_sample,
            },
        )
