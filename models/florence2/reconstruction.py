"""The light decoder of masked autoencoding, and its loss."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import ViTConfig
from transformers.models.vit.modeling_vit import ViTLayer

from models.florence2.config import Florence2Config

# SplitMix64's constants, as signed 64-bit integers.
_GAMMA = 0x9E3779B97F4A7C15 - 2**64
_MIX = ((30, 0xBF58476D1CE4E5B9 - 2**64), (27, 0x94D049BB133111EB - 2**64))


def decoder_config(config: Florence2Config) -> ViTConfig:
    """The `transformers` config of the decoder's layers."""
    light = config.reconstruction
    vit = ViTConfig(
        hidden_size=light.width,
        intermediate_size=light.mlp_width,
        num_hidden_layers=light.layers,
        num_attention_heads=light.heads,
        hidden_dropout_prob=0.0,
        initializer_range=config.initialiser_range,
        attention_probs_dropout_prob=0.0,
    )
    vit._attn_implementation = "sdpa"  # bare layers have no model around them to choose it
    return vit


class Reconstruction(nn.Module):
    """Reconstructs masked patches from the encoded ones (He et al. 2022, section 3), with learned positions."""

    def __init__(self, config: Florence2Config) -> None:
        super().__init__()
        vit = decoder_config(config)
        self.embed = nn.Linear(config.vision.width, vit.hidden_size)
        self.hidden_token = nn.Parameter(torch.zeros(1, 1, vit.hidden_size))
        self.positions = nn.Parameter(torch.zeros(1, 1 + config.vision.patches, vit.hidden_size))
        self.layers = nn.ModuleList(ViTLayer(vit) for _ in range(vit.num_hidden_layers))
        self.norm = nn.LayerNorm(vit.hidden_size)
        self.predict = nn.Linear(vit.hidden_size, 3 * config.vision.patch_size**2)

    def forward(self, encoded: Tensor, order: Tensor) -> Tensor:
        """Pixels of every patch, [m, patches, 3 * patch_size^2].

        ``encoded`` [m, 1 + kept, width]: class token, then the first ``kept`` patches of ``order``, int64
        [m, patches], a permutation of the patches per image.
        """
        tokens = self.embed(encoded)
        hidden_patches = order.shape[1] - (tokens.shape[1] - 1)
        filled = torch.cat([tokens[:, 1:], self.hidden_token.expand(len(tokens), hidden_patches, -1)], dim=1)
        back = order.argsort(dim=1)[..., None].expand(-1, -1, filled.shape[-1])
        hidden = torch.cat([tokens[:, :1], filled.gather(1, back)], dim=1) + self.positions
        for layer in self.layers:
            hidden = layer(hidden)
        return self.predict(self.norm(hidden))[:, 1:]


def random_order(seeds: Tensor, size: int) -> Tensor:
    """A permutation of ``range(size)`` for each of ``seeds``, int64 [n]: int64 [n, size], equal on any device.

    Sorts the outputs of SplitMix64 (Steele et al. 2014) from each seed on.
    """
    z = seeds[:, None] + _GAMMA * torch.arange(1, size + 1, device=seeds.device)
    for shift, factor in _MIX:
        z = (z ^ _shifted(z, shift)) * factor
    return (z ^ _shifted(z, 31)).argsort(dim=1)


def _shifted(z: Tensor, by: int) -> Tensor:
    """Logical shift to the right; torch's own of int64 repeats the sign."""
    return (z >> by) & ((1 << (64 - by)) - 1)


def patches_of(pixels: Tensor, patch_size: int) -> Tensor:
    """``pixels`` [m, 3, height, width] cut into rows of patches: [m, patches, 3 * patch_size^2]."""
    return nn.functional.unfold(pixels, patch_size, stride=patch_size).transpose(1, 2)


def reconstruction_loss(predicted: Tensor, pixels: Tensor, hidden: Tensor, patch_size: int, normalise: bool) -> Tensor:
    """Mean squared error over masked patches only, in float32.

    ``predicted`` [m, patches, 3 * patch_size^2], ``pixels`` [m, 3, height, width], ``hidden`` bool [m, patches]. With
    ``normalise`` each patch's target has mean 0 and variance 1 (unbiased, + 1e-6, as in the reference code).
    """
    target = patches_of(pixels.float(), patch_size)
    if normalise:
        mean, variance = target.mean(dim=-1, keepdim=True), target.var(dim=-1, keepdim=True)
        target = (target - mean) / (variance + 1e-6).sqrt()
    per_patch = (predicted.float() - target).square().mean(dim=-1)
    return (per_patch * hidden).sum() / hidden.sum()
