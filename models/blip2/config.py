"""Configuration of a BLIP2-Adapter and of its objectives. Light: imports no torch, so `pairmill show` stays quick."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from models.common.config import (
    FingerprintedUnless,
    InitialiseFrom,
    ModelConfig,
    StrictConfig,
    VisionConfig,
    divisible,
)
from models.common.released import decoder_shape, language_description


class Blip2VisionConfig(VisionConfig):
    """The vision transformer."""

    family: Annotated[Literal["clip", "siglip", "eva"], FingerprintedUnless("clip")] = "clip"
    """Whose layers it has. `clip`: CLIP's, OpenCLIP's too. `siglip`: SigLIP's, without a class token. `eva`: that of
    the released BLIP-2 (EVA-CLIP's)."""
    activation: Annotated[Literal["gelu", "quick_gelu"], FingerprintedUnless("gelu")] = "gelu"
    """Of family `clip`: `quick_gelu` in OpenAI's weights, `gelu` in OpenCLIP's. The other families have their own."""

    @model_validator(mode="after")
    def _activation_is_clips(self) -> Blip2VisionConfig:
        if self.family != "clip" and self.activation != "gelu":
            raise ValueError(f"activation is for family=clip; family={self.family} has its own")
        return self

    @property
    def tokens(self) -> int:
        """What an image becomes: its patches and, but for `siglip`, the class token."""
        return self.patches + (self.family != "siglip")


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
    """The decoder language model."""

    family: Annotated[Literal["opt", "transformers"], FingerprintedUnless("opt")] = "opt"
    """`opt`: OPT's shape, in the sizes below. `transformers`: any decoder that `transformers` has behind
    AutoModelForCausalLM, in the shape below."""
    shape: Annotated[dict[str, Any] | None, FingerprintedUnless(None)] = None
    """Family `transformers`: the contents of the decoder's config.json. Null: that of `initialise_from.language`. The
    sizes below then follow from it, whatever they say; `vocabulary` and the tokenizer replace its ids."""
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
    """Dropout of hidden states. Family `transformers` has its own in the shape."""

    @model_validator(mode="before")
    @classmethod
    def _sizes_of_shape(cls, values: Any) -> Any:
        if not isinstance(values, Mapping) or values.get("family", "opt") != "transformers":
            return values
        shape = values.get("shape")
        if not isinstance(shape, Mapping):
            raise ValueError("shape is missing: set model.initialise_from.language to a folder with a config.json")
        return {**values, **_sizes(shape), "shape": decoder_shape(shape)}

    @model_validator(mode="after")
    def _fits(self) -> LanguageConfig:
        if self.family == "opt" and self.shape is not None:
            raise ValueError("shape is for family=transformers; family=opt has its sizes")
        divisible("width", self.width, "heads", self.heads)
        return self

    @property
    def model_type(self) -> str:
        """What `transformers` calls its family."""
        return self.family if self.shape is None else str(self.shape["model_type"])


#: Our name of a size -> the names that decoders of `transformers` give it in config.json.
_SIZES = {
    "width": ("hidden_size", "n_embd", "d_model"),
    "layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    "heads": ("num_attention_heads", "n_head", "n_heads", "num_heads", "attention_heads"),
    "mlp_width": ("intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size"),
    "positions": ("max_position_embeddings", "n_positions", "max_seq_len"),
}


def _sizes(shape: Mapping[str, Any]) -> dict[str, int]:
    """The sizes of a decoder by its config.json. Raises ValueError for one that does not state them."""
    if not isinstance(shape.get("model_type"), str):
        raise ValueError("shape names no model_type, the family of the decoder")
    if shape.get("quantization_config"):
        raise ValueError("shape is that of quantised weights, which cannot be trained with; give the original ones")
    if isinstance(shape.get("text_config"), Mapping):
        raise ValueError(
            f"shape is that of a {shape['model_type']}, which is more than a decoder of text; give a folder of its "
            "decoder alone"
        )
    sizes: dict[str, int] = {}
    for name, theirs in _SIZES.items():
        stated = [shape[key] for key in theirs if isinstance(shape.get(key), int)]
        if stated:
            sizes[name] = stated[0]
        elif name == "mlp_width":
            sizes[name] = 4 * sizes["width"]  # GPT-2 and its like
        else:
            raise ValueError(
                f"shape, that of a {shape['model_type']}, states no {theirs[0]}, which decoders here have; give "
                "another family, such as llama, mistral, qwen3 or opt"
            )
    return sizes


class AdapterConfig(StrictConfig):
    """Gated cross-attention from the language model to the Q-Former's outputs (Flamingo, section 2.2; no FFN)."""

    every: int = Field(default=2, ge=1)
    """An adapter stands before language layers 0, k, 2k, ..."""
    gate: float = Field(default=0.0, ge=0, le=2)
    """Initial value: ``tanh(gate)`` scales what an adapter adds; 0 leaves a pretrained model untouched."""
    zero_output: Annotated[bool, FingerprintedUnless(False)] = False
    """Whether output projections start at zero: then an open gate leaves a pretrained model untouched, too, and all
    weights learn from the first step on, where a closed gate opens by the learning rate a step at most."""


class HeadsConfig(StrictConfig):
    """The projections that only stage 1 needs."""

    projection: int = Field(default=256, ge=8)
    """Size of the contrastive features."""
    temperature: float = Field(default=0.07, gt=0, le=1)
    """Initial value of the learned temperature."""


class Blip2InitialiseFrom(InitialiseFrom):
    """A released BLIP-2 (`Blip2ForConditionalGeneration`) may be given for each of its parts."""

    language: str | None = None
    """A `transformers` folder of a decoder of the language model's family and shape."""
    vision: str | None = None
    """A `transformers` folder of a vision model of `vision.family` and of this shape; positions are interpolated to
    this grid."""
    qformer: str | None = None
    """A `transformers` folder of a Q-Former of this shape, or of a BLIP-2, whose queries are taken, too."""
    qformer_embeddings: Annotated[bool, FingerprintedUnless(False)] = False
    """Whether its token and position embeddings are taken, too, where it has some (`Blip2ForImageTextRetrieval`): for
    a tokenizer with the ids that it was trained with, in the released ones BERT's."""
    projection: Annotated[str | None, FingerprintedUnless(None)] = None
    """A `transformers` folder of a BLIP-2 whose projection is taken; for `bridge=prefix`."""


class Blip2Config(ModelConfig):
    """The whole model."""

    architecture: Literal["blip2"] = "blip2"
    """Which code builds it."""
    vision: Blip2VisionConfig
    """The vision transformer."""
    initialise_from: Blip2InitialiseFrom = Blip2InitialiseFrom()
    """Weights to start from."""
    qformer: QFormerConfig
    """The querying transformer."""
    language: LanguageConfig
    """The language model."""
    bridge: Annotated[Literal["adapters", "prefix"], FingerprintedUnless("adapters")] = "adapters"
    """How the Q-Former's outputs reach the language model. `adapters`: by gated cross-attention between its layers.
    `prefix`: projected to its width and put before the text, as in BLIP-2."""
    adapters: AdapterConfig = AdapterConfig()
    """The gated cross-attention between the two."""
    heads: HeadsConfig = HeadsConfig()
    """Stage 1's projections."""

    @model_validator(mode="before")
    @classmethod
    def _shape_of_language(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        language, folders = values.get("language"), values.get("initialise_from")
        if (
            not isinstance(language, Mapping)
            or language.get("family") != "transformers"
            or language.get("shape") is not None
            or not isinstance(folders, Mapping)
            or folders.get("language") is None
        ):
            return values
        described = language_description(str(folders["language"]), "model.initialise_from.language")
        return {**values, "language": {**language, "shape": decoder_shape(described)}}

    @model_validator(mode="after")
    def _projection_is_used(self) -> Blip2Config:
        if self.initialise_from.projection is not None and self.bridge != "prefix":
            raise ValueError("initialise_from.projection is for bridge=prefix")
        return self

    @property
    def bridge_part(self) -> str:
        """The part between the Q-Former and the language model."""
        return "adapters" if self.bridge == "adapters" else "projection"

    @property
    def adapter_layers(self) -> tuple[int, ...]:
        """The language layers that have an adapter before them."""
        if self.bridge != "adapters":
            return ()
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
