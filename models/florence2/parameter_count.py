"""The number of parameters of a Florence-2, by part, without torch."""

from __future__ import annotations

from models.common.parameter_count import attention, linear, norm, pre_norm_layer
from models.florence2.config import Florence2Config


def count_parameters(config: Florence2Config) -> dict[str, int]:
    """Part -> parameters; the sum is the model's total (tied weights count once, with their part)."""
    vision, light, language = config.vision, config.reconstruction, config.language
    d, v, r = language.width, vision.width, light.width
    pixels = 3 * vision.patch_size**2
    return {
        "vision": (
            v
            + linear(pixels, v)
            + (1 + vision.patches) * v  # class token, patches, positions
            + norm(v)
            + vision.layers * pre_norm_layer(v, vision.mlp_width)
        ),
        "reconstruction": (
            linear(v, r)
            + r
            + (1 + vision.patches) * r
            + norm(r)
            + linear(r, pixels)
            + light.layers * pre_norm_layer(r, light.mlp_width)
        ),
        "projector": linear(v, d) + norm(d),
        "language": (
            config.vocabulary * d
            + 2 * ((language.positions + 2) * d + 2 * norm(d))  # mBART keeps two positions it never uses
            + language.encoder_layers * pre_norm_layer(d, language.mlp_width)
            + language.decoder_layers * (pre_norm_layer(d, language.mlp_width) + attention(d) + norm(d))
        ),
    }
