"""Configuration of a BLIP2-Adapter and of its objectives. Light: imports no torch, so `pairmill show` stays quick."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from models.common.config import InitialiseFrom, ModelConfig, StrictConfig, VisionConfig, divisible


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
    """Layers 0, k, 2k, ... attend to the image."""
    text_positions: int = Field(default=512, ge=8)
    """Longest text of stage 1, in tokens, its first token included."""
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
    """Initial value: ``tanh(gate)`` scales what an adapter adds; 0 leaves a pretrained model untouched."""


class HeadsConfig(StrictConfig):
    """The projections that only stage 1 needs."""

    projection: int = Field(default=256, ge=8)
    """Size of the contrastive features."""
    temperature: float = Field(default=0.07, gt=0, le=1)
    """Initial value of the learned temperature."""


class Blip2InitialiseFrom(InitialiseFrom):
    """The language model is an OPT."""

    vision: str | None = None
    """A `transformers` folder of a CLIP vision model of this shape; positions are interpolated to this grid."""
    qformer: str | None = None
    """A `transformers` folder of a `Blip2QFormerModel` of this shape."""


class Blip2Config(ModelConfig):
    """The whole model."""

    architecture: Literal["blip2"] = "blip2"
    """Which code builds it."""
    vision: VisionConfig
    """The vision transformer (CLIP's shape)."""
    initialise_from: Blip2InitialiseFrom = Blip2InitialiseFrom()
    """Weights to start from."""
    qformer: QFormerConfig
    """The querying transformer."""
    language: LanguageConfig
    """The language model."""
    adapters: AdapterConfig = AdapterConfig()
    """The gated cross-attention between the two."""
    heads: HeadsConfig = HeadsConfig()
    """Stage 1's projections."""

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
