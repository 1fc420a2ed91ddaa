"""What a Florence-2 is made of. Light on purpose: no torch here, so `pairmill show` stays quick."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from models.blip2.config import VisionConfig, divisible
from models.common.config import StrictConfig


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
    """Layers that write the target."""
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


class InitialiseFrom(StrictConfig):
    """Local folders of weights that parts start from; a part without one starts at random."""

    vision: str | None = None
    """A `transformers` folder of a ViT or ViT-MAE of this shape; positions are interpolated to this grid."""
    language: str | None = None
    """A `transformers` folder of an mBART of this shape."""
    embeddings: bool = True
    """Whether its token embeddings are taken, too. False starts them at random: for a tokenizer whose ids mean other
    tokens than those the language model was trained with."""


class Florence2Config(StrictConfig):
    """The whole model."""

    architecture: Literal["florence2"] = "florence2"
    """Which code builds it."""
    name: str
    """What the model is called; must be the name of its recipe too."""
    vocabulary: int = Field(ge=16)
    """Rows of the embeddings: at least the tokenizer's size, location tokens included."""
    vision: VisionConfig
    """The vision transformer."""
    reconstruction: ReconstructionConfig
    """The decoder that masked autoencoding trains it with."""
    language: LanguageConfig
    """The encoder-decoder."""
    initialiser_range: float = Field(default=0.02, gt=0, le=1)
    """Standard deviation of random weights; the usual 0.02 suits widths near 1,000, narrow models need more."""
    initialise_from: InitialiseFrom = InitialiseFrom()
    """Weights to start from."""

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


class SequenceToSequenceSettings(StrictConfig):
    """Every task: the loss on the target's tokens."""

    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Smoothing of the targets."""
