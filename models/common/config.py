"""Configuration schemas that every architecture builds on. Light: imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from models.common.released import pixel_statistics


class StrictConfig(BaseModel):
    """A frozen schema in which an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


@dataclass(frozen=True)
class FingerprintedUnless:
    """Marks a config field that was added later: fingerprints and manifests leave it out where it has the value that
    stands for what every run did before.

    ``captions: Annotated[Literal["list", "none"], FingerprintedUnless("list")] = "list"`` leaves every existing
    artifact up to date.
    """

    value: Any


def divisible(what: str, width: int, by: str, divisor: int) -> None:
    """Raise ValueError with one line unless ``width`` is a multiple of ``divisor``."""
    if width % divisor:
        raise ValueError(f"{what} {width} is not divisible by {by} {divisor}")


_Above0 = Annotated[float, Field(gt=0)]
#: Deviation of red, green and blue.
Deviation = tuple[_Above0, _Above0, _Above0]


class ImageConfig(StrictConfig):
    """The images a model takes."""

    image_size: int = Field(ge=8)
    """Pixels of the square image the model takes; the loader resizes its crop to it."""
    image_mean: Annotated[tuple[float, float, float] | None, FingerprintedUnless(None)] = None
    """Mean of red, green and blue, of values 0 to 1, that is subtracted from pixels. Null: what
    `initialise_from.vision` states in its preprocessor_config.json, or else the recipe's."""
    image_std: Annotated[Deviation | None, FingerprintedUnless(None)] = None
    """Deviation that pixels are then divided by. Null: as `image_mean`."""


class VisionConfig(ImageConfig):
    """A vision transformer (pre-norm)."""

    patch_size: int = Field(ge=1)
    """Pixels of a patch's side."""
    width: int = Field(ge=8)
    """Size of a token."""
    layers: int = Field(ge=1)
    """Transformer layers."""
    heads: int = Field(ge=1)
    """Attention heads."""
    mlp_width: int = Field(ge=8)
    """Hidden size of the feed-forward blocks."""

    @model_validator(mode="after")
    def _fits(self) -> VisionConfig:
        divisible("image_size", self.image_size, "patch_size", self.patch_size)
        divisible("width", self.width, "heads", self.heads)
        return self

    @property
    def patches(self) -> int:
        """Patches of an image, without the class token."""
        return (self.image_size // self.patch_size) ** 2


class InitialiseFrom(StrictConfig):
    """Local folders of weights that parts start from; a part without one starts at random."""

    language: str | None = None
    """A `transformers` folder of a language model of the architecture's family and of this shape."""
    embeddings: bool = True
    """Whether its token embeddings are taken, too. False starts them at random: for a tokenizer whose ids mean other
    tokens than those the language model was trained with."""

    @property
    def folders(self) -> dict[str, str]:
        """The folders that are given, by part."""
        return {part: folder for part, folder in self if isinstance(folder, str)}


class ModelConfig(StrictConfig):
    """What stages and pipelines read of any architecture's config; an architecture adds its own fields."""

    architecture: str
    """The key of the architecture in `models/registry.py`; a subclass narrows it to a Literal with a default."""
    name: str
    """What the model is called; must be the name of its recipe too."""
    vocabulary: int = Field(ge=16)
    """Rows of the embeddings: at least the tokenizer's size, location tokens included."""
    vision: ImageConfig
    """The images it takes and, in most architectures, the vision transformer."""
    initialiser_range: float = Field(default=0.02, gt=0, le=1)
    """Standard deviation of random weights; the usual 0.02 suits widths near 1,000, narrow models need more."""
    initialise_from: InitialiseFrom = InitialiseFrom()
    """Weights to start from."""

    @model_validator(mode="before")
    @classmethod
    def _note_pixel_statistics(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        vision, folders = values.get("vision"), values.get("initialise_from")
        if not isinstance(vision, Mapping) or not isinstance(folders, Mapping) or not folders.get("vision"):
            return values
        own = {name: value for name, value in vision.items() if value is not None}
        return {**values, "vision": {**vision, **pixel_statistics(str(folders["vision"])), **own}}


class TextSettings(StrictConfig):
    """Settings of the objective that learns to write texts (`models/common/objectives.py`)."""

    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Smoothing of the targets."""
