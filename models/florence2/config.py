"""Configuration of a Florence-2 and of its objectives. Light: imports no torch, so `pairmill show` stays quick."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from models.common.config import InitialiseFrom, ModelConfig, StrictConfig, VisionConfig, divisible


class ReconstructionConfig(StrictConfig):
    """The light decoder of masked autoencoding (He et al. 2022, section 3), used in pretraining only."""

    width: int = Field(ge=8)
    """Size of a token."""
    layers: int = Field(ge=1)
    """Transformer layers."""
    heads: int = Field(ge=1)
    """Attention heads."""
    mlp_width: int = Field(ge=8)
    """Hidden size of the feed-forward blocks."""

    @model_validator(mode="after")
    def _fits(self) -> ReconstructionConfig:
        divisible("width", self.width, "heads", self.heads)
        return self


class LanguageConfig(StrictConfig):
    """The encoder-decoder (mBART's shape: BART with the norm before each block, which stays stable when deep)."""

    width: int = Field(ge=8)
    """Size of a token."""
    encoder_layers: int = Field(ge=1)
    """Layers over image tokens and prompt."""
    decoder_layers: int = Field(ge=1)
    """Layers that predict the target."""
    heads: int = Field(ge=1)
    """Attention heads."""
    mlp_width: int = Field(ge=8)
    """Hidden size of the feed-forward blocks."""
    positions: int = Field(ge=8)
    """Longest encoder input (image and prompt) and longest target, in tokens."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Dropout of hidden states."""

    @model_validator(mode="after")
    def _fits(self) -> LanguageConfig:
        divisible("width", self.width, "heads", self.heads)
        return self


class Florence2InitialiseFrom(InitialiseFrom):
    """The language model is an mBART."""

    vision: str | None = None
    """A `transformers` folder of a ViT or ViT-MAE of this shape; positions are interpolated to this grid."""


class Florence2Config(ModelConfig):
    """The whole model."""

    architecture: Literal["florence2"] = "florence2"
    """Which code builds it."""
    vision: VisionConfig
    """The vision transformer."""
    initialise_from: Florence2InitialiseFrom = Florence2InitialiseFrom()
    """Weights to start from."""
    reconstruction: ReconstructionConfig
    """The decoder that masked autoencoding trains it with."""
    language: LanguageConfig
    """The encoder-decoder."""

    @model_validator(mode="after")
    def _image_fits(self) -> Florence2Config:
        if self.language.positions <= self.vision.patches:
            raise ValueError(
                f"language.positions {self.language.positions} leaves no room for a prompt beside the image's"
                f" {self.vision.patches} patches"
            )
        return self


class MaskedAutoencodingSettings(StrictConfig):
    """Pretraining of the vision transformer."""

    mask_ratio: float = Field(default=0.75, gt=0, lt=1)
    """Share of patches hidden from the encoder."""
    normalise_pixels: bool = True
    """Whether each patch's target has mean 0 and variance 1 (He et al. 2022, table 1d)."""
