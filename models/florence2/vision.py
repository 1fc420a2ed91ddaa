"""The vision transformer of Florence-2: a ViT that can encode a subset of the patches, as a masked autoencoder must."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import ViTConfig, ViTModel
from transformers.models.vit.modeling_vit import ViTEmbeddings

from models.common.position_embeddings import balance_positions
from models.florence2.config import Florence2Config


def vit_config(config: Florence2Config) -> ViTConfig:
    """The `transformers` config of the vision transformer."""
    vision = config.vision
    return ViTConfig(
        hidden_size=vision.width,
        intermediate_size=vision.mlp_width,
        num_hidden_layers=vision.layers,
        num_attention_heads=vision.heads,
        image_size=vision.image_size,
        patch_size=vision.patch_size,
        hidden_dropout_prob=0.0,
        initializer_range=config.initialiser_range,
        attention_probs_dropout_prob=0.0,
    )


class VisionTransformer(ViTModel):
    """A ViT without a pooler."""

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, ViTEmbeddings):
            balance_positions(module.patch_embeddings.projection, module.position_embeddings)

    def __init__(self, config: ViTConfig) -> None:
        super().__init__(config, add_pooling_layer=False)

    def encode(self, pixels: Tensor, kept: Tensor | None = None) -> Tensor:
        """``pixels`` [m, 3, height, width], normalised -> [m, 1 + tokens, width], the class token first.

        ``kept`` int64 [m, tokens]: the only patches that are encoded, in that order; None for all.
        """
        hidden = self.embeddings(pixels.to(self.embeddings.cls_token.dtype))
        if kept is not None:
            patches = hidden[:, 1:].gather(1, kept[..., None].expand(-1, -1, hidden.shape[-1]))
            hidden = torch.cat([hidden[:, :1], patches], dim=1)
        for layer in self.layers:
            hidden = layer(hidden)
        return self.layernorm(hidden)
