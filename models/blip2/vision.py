"""The vision transformer of BLIP2-Adapter: CLIP's, of which ViT-bigG/14 is the published one of this shape."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel
from transformers.models.clip.modeling_clip import CLIPVisionEmbeddings

from models.blip2.config import Blip2Config
from models.common.position_embeddings import balance_positions


def clip_config(config: Blip2Config) -> CLIPVisionConfig:
    """The `transformers` config of the vision transformer."""
    vision = config.vision
    return CLIPVisionConfig(
        hidden_size=vision.width,
        intermediate_size=vision.mlp_width,
        num_hidden_layers=vision.layers,
        num_attention_heads=vision.heads,
        image_size=vision.image_size,
        patch_size=vision.patch_size,
        hidden_act="gelu",
        initializer_range=config.initialiser_range,
    )


class VisionTransformer(CLIPVisionModel):
    """CLIP's vision transformer whose last norm covers every token, not only the class token."""

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, CLIPVisionEmbeddings):
            balance_positions(module.patch_embedding, module.position_embedding.weight)

    def encode(self, pixels: Tensor) -> Tensor:
        """``pixels`` [m, 3, height, width], normalised -> [m, 1 + patches, width], the class token first."""
        pixels = pixels.to(self.embeddings.patch_embedding.weight.dtype)
        return self.post_layernorm(self(pixels).last_hidden_state)
