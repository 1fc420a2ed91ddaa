"""The vision transformers of BLIP2-Adapter: CLIP's (ViT-bigG/14 is the published one), SigLIP's, and BLIP-2's EVA."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    Blip2VisionConfig,
    Blip2VisionModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    PreTrainedConfig,
    PreTrainedModel,
    SiglipVisionConfig,
    SiglipVisionModel,
)
from transformers.models.blip_2.modeling_blip_2 import Blip2VisionEmbeddings
from transformers.models.clip.modeling_clip import CLIPVisionEmbeddings
from transformers.models.siglip.modeling_siglip import SiglipVisionEmbeddings

from models.blip2.config import Blip2Config
from models.common.position_embeddings import balance_positions


class ClipVision(CLIPVisionModel):
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


class SiglipVision(SiglipVisionModel):
    """SigLIP's vision transformer without the head that pools its tokens."""

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, SiglipVisionEmbeddings):
            balance_positions(module.patch_embedding, module.position_embedding.weight)

    def encode(self, pixels: Tensor) -> Tensor:
        """``pixels`` [m, 3, height, width], normalised -> [m, patches, width]."""
        return self(pixels).last_hidden_state


class EvaVision(Blip2VisionModel):
    """The vision transformer of the released BLIP-2, EVA-CLIP's without its last layer."""

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, Blip2VisionEmbeddings):
            balance_positions(module.patch_embedding, module.position_embedding)

    def encode(self, pixels: Tensor) -> Tensor:
        """``pixels`` [m, 3, height, width], normalised -> [m, 1 + patches, width], the class token first."""
        return self(pixels).last_hidden_state


VisionTransformer = ClipVision | SiglipVision | EvaVision

#: Family -> our class, and that of its `transformers` config.
FAMILIES: dict[str, tuple[type[VisionTransformer], type[PreTrainedConfig]]] = {
    "clip": (ClipVision, CLIPVisionConfig),
    "siglip": (SiglipVision, SiglipVisionConfig),
    "eva": (EvaVision, Blip2VisionConfig),
}
#: Family -> the class of `transformers` that its weights are stored as.
STOCK: dict[str, type[PreTrainedModel]] = {
    "clip": CLIPVisionModel,
    "siglip": SiglipVisionModel,
    "eva": Blip2VisionModel,
}


def vision_config(config: Blip2Config) -> PreTrainedConfig:
    """The `transformers` config of the vision transformer."""
    vision = config.vision
    own: dict[str, dict[str, Any]] = {
        "clip": {"hidden_act": vision.activation},
        "siglip": {"vision_use_head": False},
        "eva": {},
    }
    kind: Any = FAMILIES[vision.family][1]
    made: PreTrainedConfig = kind(
        hidden_size=vision.width,
        intermediate_size=vision.mlp_width,
        num_hidden_layers=vision.layers,
        num_attention_heads=vision.heads,
        image_size=vision.image_size,
        patch_size=vision.patch_size,
        initializer_range=config.initialiser_range,
        **own[vision.family],
    )
    return made


def build_vision(config: Blip2Config) -> VisionTransformer:
    """The vision transformer of the config's family, its weights random."""
    kind: Any = FAMILIES[config.vision.family][0]
    made: VisionTransformer = kind(vision_config(config))
    return made
