"""The gated cross-attention by which a language layer attends to the Q-Former's outputs."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.blip2.config import Blip2Config


class GatedCrossAttention(nn.Module):
    """``x + tanh(gate) * attention(norm(x), image)``: Flamingo's block (section 2.2) without its feed-forward half.

    2 d^2 + 2 w d weights, d the language model's width and w the Q-Former's; no biases on the projections.
    """

    def __init__(self, width: int, image_width: int, heads: int, gate: float) -> None:
        super().__init__()
        self.heads = heads
        self.initial_gate = gate
        self.norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(image_width, width, bias=False)
        self.value = nn.Linear(image_width, width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.gate = nn.Parameter(torch.full((1,), gate))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(self, hidden: Tensor, image_tokens: Tensor) -> Tensor:
        """``hidden`` [n, length, width], ``image_tokens`` [n, queries, image width] -> [n, length, width]."""
        attended = F.scaled_dot_product_attention(
            self._split(self.query(self.norm(hidden))),
            self._split(self.key(image_tokens)),
            self._split(self.value(image_tokens)),
        )
        return hidden + torch.tanh(self.gate) * self.out(attended.transpose(1, 2).flatten(2))


def build_adapters(config: Blip2Config) -> nn.ModuleDict:
    """One adapter per adapted language layer, keyed by that layer's number."""
    return nn.ModuleDict(
        {
            str(layer): GatedCrossAttention(
                config.language.width, config.qformer.width, config.language.heads, config.adapters.gate
            )
            for layer in config.adapter_layers
        }
    )
