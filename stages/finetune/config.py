"""A task to fine-tune for: its data, its prompt and its optimisation."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from models import registry
from stages.base.contract import FingerprintedAs, StageConfig
from stages.base.external_files import ExternalFile, ExternalFilesConfig
from stages.train.config import OptimizationConfig, PhaseConfig, Precision, Trainable

#: Tokens of a box, with the end of the text.
BOX_TEXT = 5


class TaskConfig(OptimizationConfig, ExternalFilesConfig):
    """`conf/task/*.yaml`, under `tasks.<name>`."""

    kind: Annotated[Literal["vqa", "captions", "grounding"], FingerprintedAs(values={"grounding": "regions"})]
    """`vqa`: questions and answers in VQAv2's format. `captions`: COCO's captions format. `grounding`: the same with
    a box for each caption, as RefCOCO's and Visual Genome's expressions are put; needs a tokenizer with location
    tokens."""
    questions: Annotated[str | None, ExternalFile] = None
    """VQAv2 questions JSON: `questions: [{question_id, image_id, question}]`; only for `vqa`."""
    annotations: Annotated[str, ExternalFile]
    """VQAv2 annotations JSON (`annotations: [{question_id, image_id, multiple_choice_answer}]`), COCO captions JSON
    (`annotations: [{image_id, caption}]`), or regions (`annotations: [{image_id, bbox, caption}]`, where `bbox` is
    `[x, y, width, height]` in pixels of the upright image)."""
    images: Annotated[str, ExternalFile]
    """Folder of the images."""
    image_pattern: str = "{image_id}.jpg"
    """File name of an image below `images`; `{image_id:012d}` pads with zeros as COCO does."""
    prompt: str = ""
    """Put before the text to be written; `{}` stands for the question. For `grounding` it decides what is written: with
    `{}`, which stands for the caption, the region's box; with `{box}` its caption."""
    objective: str | None = None
    """An objective of the model; null takes the one that learns to write text."""
    settings: dict[str, float] = {}
    """Settings of the objective, such as `label_smoothing`; the model's own defaults otherwise."""
    texts_per_image: Annotated[int, Field(ge=1)] = 1
    """Questions or captions taken together with their image, which is encoded once for all; each epoch takes the
    next ones."""
    steps: Annotated[int | None, Field(ge=1)] = None
    """Optimizer steps; exactly one of `steps` and `epochs` is given."""
    epochs: Annotated[float | None, Field(gt=0)] = None
    """Passes over the images."""
    trainable: Trainable = None
    """Parts of the model that learn; null lets every part learn that the objective uses."""

    @field_validator("kind", mode="before")
    @classmethod
    def _former_name(cls, kind: Any) -> Any:
        return "grounding" if kind == "regions" else kind

    @model_validator(mode="after")
    def _consistent(self) -> TaskConfig:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give exactly one of steps and epochs")
        if (self.kind == "vqa") != (self.questions is not None):
            raise ValueError("questions belongs to kind vqa, and to no other")
        if self.kind == "grounding":
            if self.prompt.count("{}") + self.prompt.count("{box}") != 1:
                raise ValueError("prompt of kind grounding holds one of {} for the caption and {box} for the box, once")
            if self.max_text_tokens < BOX_TEXT:
                raise ValueError(
                    f"max_text_tokens of kind grounding is at least {BOX_TEXT}: a box and the end of the text"
                )
        elif (self.kind == "vqa") != ("{}" in self.prompt):
            raise ValueError("prompt holds {} for the question if and only if kind is vqa")
        return self

    def phase(self, architecture: str) -> PhaseConfig:
        """Fine-tuning as the one phase of a training run."""
        return PhaseConfig(
            objective=self.objective or registry.spec(architecture).text_objective,
            settings=self.settings,
            steps=self.steps,
            epochs=self.epochs,
            trainable=self.trainable,
        )


class FinetuneConfig(StageConfig):
    """What a fine-tuned model is made from, besides the model it starts from."""

    name: str
    """The task's name."""
    task: TaskConfig
    """Its data and optimisation."""
    precision: Precision = "fp32"
    """Arithmetic of training; the cluster's (`cluster.precision`)."""
