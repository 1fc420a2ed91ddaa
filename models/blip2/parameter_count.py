"""The number of parameters of a BLIP2-Adapter, by part, without torch."""

from __future__ import annotations

from models.blip2.config import Blip2Config
from models.common.parameter_count import attention, feed_forward, linear, norm, pre_norm_layer


def count_parameters(config: Blip2Config) -> dict[str, int]:
    """Part -> parameters; the sum is the model's total (tied weights count once, with their part)."""
    vision, qformer, language = config.vision, config.qformer, config.language
    d, q, v = language.width, qformer.width, vision.width
    cross_attentions = len(range(0, qformer.layers, qformer.cross_attention_every))
    return {
        "vision": (
            v
            + 3 * vision.patch_size**2 * v
            + (1 + vision.patches) * v  # class token, patches, positions
            + 2 * norm(v)
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
        "adapters": len(config.adapter_layers) * (norm(d) + 2 * d * d + 2 * q * d + 1),
        "language": (
            (config.vocabulary + language.positions + 2) * d  # OPT keeps two positions it never uses
            + norm(d)
            + language.layers * pre_norm_layer(d, language.mlp_width)
        ),
    }
