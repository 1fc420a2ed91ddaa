"""Benchmarks (`conf/benchmark/*.yaml`) and how they are run."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from stages.base.contract import StageConfig
from stages.base.external_files import ExternalFile, ExternalFilesConfig, named_files

CaptionMetric = Literal["bleu", "meteor", "rouge_l", "cider_d", "spice"]


class _Benchmark(ExternalFilesConfig):
    """What every benchmark has: images, and the protocol of generation."""

    split: str
    """The split's name as it is published (`val2014`, `karpathy test`); part of the protocol."""
    images: Annotated[str, ExternalFile]
    """Folder of the images. Their contents count, not where they lie."""
    image_pattern: str = "{image_id}.jpg"
    """File name of an image below `images`; `{image_id:012d}` pads with zeros as COCO does, and `{file_name}` is the
    name that the references list."""
    task: str | None = None
    """The fine-tuned model that is scored, a name of `tasks`; null scores the pretrained one."""
    prompt: str = ""
    """Put before the text to be generated, `{}` stands for the question. A model that was fine-tuned with a prompt gets
    its own."""
    beams: Annotated[int, Field(ge=1, le=64)] = 5
    """Beams of the search; 1 is greedy."""
    max_new_tokens: Annotated[int, Field(ge=1, le=1024)]
    """Most tokens written."""
    min_new_tokens: Annotated[int, Field(ge=0, le=1024)] = 0
    """Fewest tokens written."""
    length_penalty: Annotated[float, Field(ge=-10, le=10)] = 1.0
    """Exponent of the length that a beam's log-probability is divided by; above 0 favours longer texts."""

    @model_validator(mode="after")
    def _lengths_agree(self) -> _Benchmark:
        if self.min_new_tokens > self.max_new_tokens:
            raise ValueError(f"min_new_tokens={self.min_new_tokens} is above max_new_tokens={self.max_new_tokens}")
        return self

    def lists(self) -> list[str]:
        """Question, annotation and reference files as configured: all but the images."""
        return [path for path in named_files(self) if path != self.images]

    def held_out(self) -> dict[str, Any]:
        """What must not be trained on, as `stages.index.config.BenchmarkImages` takes it."""
        return {"images": self.images, "texts": self.texts(), "image_pattern": self.image_pattern}

    def texts(self) -> tuple[str, ...]:
        """The files with its questions or captions."""
        return ()


class VqaBenchmark(_Benchmark):
    """Open-ended questions in VQAv2's format, scored by VQA accuracy."""

    kind: Literal["vqa"]
    """`vqa`."""
    questions: Annotated[str, ExternalFile]
    """`questions: [{question_id, image_id, question}]`."""
    annotations: Annotated[str, ExternalFile]
    """`annotations: [{question_id, answers: [{answer}], answer_type, question_type}]`."""
    train_annotations: Annotated[str | None, ExternalFile] = None
    """The training split's annotations, whose most frequent answer is the baseline; null takes the test split's."""

    @model_validator(mode="after")
    def _asks(self) -> VqaBenchmark:
        if "{}" not in self.prompt:
            raise ValueError("prompt must hold {} for the question")
        return self

    def texts(self) -> tuple[str, ...]:
        """The questions."""
        return (self.questions,)


class CaptionBenchmark(_Benchmark):
    """Captions in COCO's format, scored by coco-caption's metrics."""

    kind: Literal["captions"]
    """`captions`."""
    references: Annotated[str, ExternalFile]
    """COCO's captions JSON (`images`, `annotations: [{image_id, caption}]`; NoCaps' `domain` of an image is reported
    by), or Karpathy's (`images: [{filename, split, sentences: [{raw}]}]`)."""
    karpathy_split: str = "test"
    """Which images of a Karpathy JSON are taken."""

    def held_out(self) -> dict[str, Any]:
        """As above, of one split."""
        return {**super().held_out(), "karpathy_split": self.karpathy_split}

    def texts(self) -> tuple[str, ...]:
        """The reference captions."""
        return (self.references,)


BenchmarkConfig = Annotated[VqaBenchmark | CaptionBenchmark, Field(discriminator="kind")]


class EvaluateSettings(StageConfig):
    """The root key `evaluate`: the same for every benchmark."""

    images_per_partition: Annotated[int, Field(ge=1)] = 128
    """Images, with all their questions, that are one unit of work."""
    texts_per_batch: Annotated[int, Field(ge=1)] = 256
    """Questions or captions generated at once, give or take one image's. Fingerprinted: sums over another batch round
    differently, which can turn a tie between two beams."""
    samples: Annotated[int, Field(ge=0)] = 32
    """Predictions shown in `samples.json`, spread evenly over the benchmark."""
    caption_metrics: list[CaptionMetric] = ["bleu", "meteor", "rouge_l", "cider_d", "spice"]
    """Metrics of captions; one that cannot be computed is reported as unavailable, with the reason."""


class EvaluateConfig(EvaluateSettings):
    """Settings, and the one benchmark."""

    name: str
    """The benchmark's name."""
    benchmark: BenchmarkConfig
    """The files, and the protocol of generation."""
