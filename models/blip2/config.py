"""What a BLIP2-Adapter is made of. Light on purpose: no torch here, so `pairmill show` stays quick."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from models.common.config import StrictConfig


def divisible(what: str, width: int, by: str, divisor: int) -> None:
    """Raise ValueError with one line unless ``width`` is a multiple of ``divisor``."""
    if width % divisor:
        raise ValueError(f"{what} {width} is not divisible by {by} {divisor}")


class VisionConfig(StrictConfig):
    """The vision transformer (CLIP's shape, pre-norm)."""

    image_size: int = Field(ge=8)
    """Pixels of the square image the model takes; the loader resizes its crop to it."""
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


class QFormerConfig(StrictConfig):
    """The querying transformer between image and language (BLIP-2, section 3.1)."""

    queries: int = Field(default=32, ge=1)
    """Learned query tokens: the number of tokens an image becomes."""
    width: int = Field(ge=8)
    """Size of a token."""
    layers: int = Field(ge=1)
    """Transformer layers."""
    heads: int = Field(ge=1)
    """Attention heads."""
    mlp_width: int = Field(ge=8)
    """Hidden size of the feed-forward blocks; queries and text have one each per layer."""
    cross_attention_every: int = Field(default=2, ge=1)
    """Layers 0, k, 2k, ... look at the image."""
    text_positions: int = Field(default=512, ge=8)
    """Longest text of stage 1, in tokens, with its first marker."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Dropout of hidden states and attention."""

    @model_validator(mode="after")
    def _fits(self) -> QFormerConfig:
        divisible("width", self.width, "heads", self.heads)
        return self


class LanguageConfig(StrictConfig):
    """The decoder language model (OPT's shape)."""

    width: int = Field(ge=8)
    """Size of a token."""
    layers: int = Field(ge=1)
    """Transformer layers."""
    heads: int = Field(ge=1)
    """Attention heads."""
    mlp_width: int = Field(ge=8)
    """Hidden size of the feed-forward blocks."""
    positions: int = Field(default=2048, ge=8)
    """Longest prompt and answer together, in tokens."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout of hidden states."""

    @model_validator(mode="after")
    def _fits(self) -> LanguageConfig:
        divisible("width", self.width, "heads", self.heads)
        return self


class AdapterConfig(StrictConfig):
    """Gated cross-attention from the language model to the Q-Former's outputs (Flamingo, section 2.2; no FFN)."""

    every: int = Field(default=2, ge=1)
    """An adapter stands before language layers 0, k, 2k, ..."""
    gate: float = Field(default=0.0, ge=0, le=2)
    """Where the gate starts: ``tanh(gate)`` scales what an adapter adds; 0 leaves a pretrained model untouched."""


class HeadsConfig(StrictConfig):
    """What only stage 1 needs."""

    projection: int = Field(default=256, ge=8)
    """Size of the contrastive features."""
    temperature: float = Field(default=0.07, gt=0, le=1)
    """Where the learned temperature starts."""


class InitialiseFrom(StrictConfig):
    """Local folders of weights that parts start from; a part without one starts at random."""

    vision: str | None = None
    """A `transformers` folder of a CLIP vision model of this shape; positions are interpolated to this grid."""
    qformer: str | None = None
    """A `transformers` folder of a `Blip2QFormerModel` of this shape."""
    language: str | None = None
    """A `transformers` folder of an OPT model of this shape."""
    embeddings: bool = True
    """Whether its token embeddings are taken, too. False starts them at random: for a tokenizer whose ids mean other
    tokens than those the language model was trained with."""


class Blip2Config(StrictConfig):
    """The whole model."""

    architecture: Literal["blip2"] = "blip2"
    """Which code builds it."""
    name: str
    """What the model is called; must be the name of its recipe too."""
    vocabulary: int = Field(ge=16)
    """Rows of the embeddings: at least the tokenizer's size."""
    vision: VisionConfig
    """The vision transformer."""
    qformer: QFormerConfig
    """The querying transformer."""
    language: LanguageConfig
    """The language model."""
    adapters: AdapterConfig = AdapterConfig()
    """The gated cross-attention between the two."""
    heads: HeadsConfig = HeadsConfig()
    """Stage 1's projections."""
    initialiser_range: float = Field(default=0.02, gt=0, le=1)
    """Standard deviation of random weights; the usual 0.02 suits widths near 1,000, narrow models need more."""
    initialise_from: InitialiseFrom = InitialiseFrom()
    """Weights to start from."""

    @property
    def adapter_layers(self) -> tuple[int, ...]:
        """The language layers that have an adapter before them."""
        return tuple(range(0, self.language.layers, self.adapters.every))


class RepresentationSettings(StrictConfig):
    """Stage 1: the weights of its three losses (BLIP-2 uses 1, 1, 1)."""

    contrastive: float = Field(default=1.0, gt=0)
    """Weight of ITC."""
    matching: float = Field(default=1.0, gt=0)
    """Weight of ITM."""
    generation: float = Field(default=1.0, gt=0)
    """Weight of ITG."""
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    """Smoothing of ITC's targets and of ITG's."""


class LanguageModelingSettings(StrictConfig):
    """Stage 2 and fine-tuning: the loss on the target's tokens."""

    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Smoothing of the targets."""
