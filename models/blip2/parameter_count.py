"""The number of parameters of a BLIP2-Adapter, by part, without torch but for decoders of rare families."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from models.blip2.config import Blip2Config
from models.common.parameter_count import attention, feed_forward, linear, norm, pre_norm_layer


def count_parameters(config: Blip2Config) -> dict[str, int]:
    """Part -> parameters; the sum is the model's total (tied weights count once, with their part)."""
    vision, qformer, language = config.vision, config.qformer, config.language
    d, q, v = language.width, qformer.width, vision.width
    cross_attentions = len(range(0, qformer.layers, qformer.cross_attention_every))
    adapter = norm(d) + 2 * d * d + 2 * q * d + 1
    return {
        "vision": (
            3 * vision.patch_size**2 * v
            + (0 if vision.family == "clip" else v)  # bias of the patches' projection
            + (0 if vision.family == "siglip" else v)  # class token
            + vision.tokens * v  # positions
            + (2 if vision.family == "clip" else 1) * norm(v)
            + vision.layers * pre_norm_layer(v, vision.mlp_width)
        ),
        "qformer": (
            qformer.queries * q
            + norm(q)
            + qformer.layers * (attention(q) + feed_forward(q, qformer.mlp_width) + 2 * norm(q))
            + cross_attentions * (attention(q, v) + norm(q))
        ),
        "qformer_text": (
            (config.vocabulary + qformer.text_positions) * q
            + qformer.layers * (feed_forward(q, qformer.mlp_width) + norm(q))
        ),
        "heads": 2 * linear(q, config.heads.projection) + linear(q, 2) + 1,
        **(
            {"adapters": len(config.adapter_layers) * adapter}
            if config.bridge == "adapters"
            else {"projection": linear(q, d)}
        ),
        "language": _opt(config) if language.shape is None else _decoder(language.shape, config.vocabulary),
    }


def _opt(config: Blip2Config) -> int:
    language = config.language
    d = language.width
    return (
        (config.vocabulary + language.positions + 2) * d  # OPT keeps two positions it never uses
        + norm(d)
        + language.layers * pre_norm_layer(d, language.mlp_width)
    )


#: Families with LLaMA's layers -> whether query, key and value have a bias, and whether queries and keys have a norm,
#: where config.json does not say.
LIKE_LLAMA = {"llama": (False, False), "mistral": (False, False), "qwen2": (True, False), "qwen3": (False, True)}


@dataclass(frozen=True)
class LlamaLike:
    """What LLaMA's layers leave open, by a decoder's config.json."""

    size: int
    """Of a head."""
    queries: int
    keys: int
    """Width of all queries, and of all keys."""
    biased: bool
    """Whether the projections to query, key and value have biases."""
    of_attention: bool
    """Whether the projection out of the attention has one."""
    of_mlp: bool
    """Whether the feed-forward block has some."""
    normed: bool
    """Whether queries and keys pass a norm, per head."""


def is_like_llama(shape: Mapping[str, Any]) -> bool:
    """Whether a decoder, by its config.json, has LLaMA's layers."""
    return shape["model_type"] in LIKE_LLAMA


def llama_like(shape: Mapping[str, Any]) -> LlamaLike:
    """Read a config.json of a family with LLaMA's layers."""
    family = shape["model_type"]
    biased, normed = LIKE_LLAMA[family]
    d, heads = shape["hidden_size"], shape["num_attention_heads"]
    # Qwen3's classes default to heads of 128, whatever the width.
    size = shape.get("head_dim") or (128 if family == "qwen3" else d // heads)
    of_attention = bool(shape.get("attention_bias", False)) if family in ("llama", "qwen3") else False
    return LlamaLike(
        size=size,
        queries=heads * size,
        keys=(shape.get("num_key_value_heads") or heads) * size,
        biased=biased or of_attention,
        of_attention=of_attention,
        of_mlp=bool(shape.get("mlp_bias", False)),
        normed=normed,
    )


def _decoder(shape: Mapping[str, Any], vocabulary: int) -> int:
    """Parameters of a decoder by its config.json: worked out for LLaMA's layers, else counted on the meta device."""
    if not is_like_llama(shape):
        return _counted(json.dumps({**shape, "vocab_size": vocabulary}, sort_keys=True))
    own = llama_like(shape)
    d, hidden = shape["hidden_size"], shape["intermediate_size"]
    layer = (
        linear(d, own.queries, own.biased)
        + 2 * linear(d, own.keys, own.biased)
        + linear(own.queries, d, own.of_attention)
        + (2 * own.size if own.normed else 0)
        + 2 * linear(d, hidden, own.of_mlp)
        + linear(hidden, d, own.of_mlp)
        + 2 * d
    )
    tied = bool(shape.get("tie_word_embeddings", False))
    return (1 if tied else 2) * vocabulary * d + shape["num_hidden_layers"] * layer + d


@cache
def _counted(shape: str) -> int:
    import torch

    from models.blip2.language import decoder_class, decoder_config

    config = decoder_config(json.loads(shape), "model.language.shape")
    with torch.device("meta"):
        return sum(weight.numel() for weight in decoder_class(config)(config).parameters())
