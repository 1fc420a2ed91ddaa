"""The gated cross-attention by which a language layer attends to the Q-Former's outputs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.blip2.config import Blip2Config


class GatedCrossAttention(nn.Module):
    """``x + tanh(gate) * attention(norm(x), image)``: Flamingo's block (section 2.2) without its feed-forward half.

    2 d^2 + 2 w d weights, d the language model's width and w the Q-Former's; no biases on the projections.
    """

    def __init__(self, width: int, image_width: int, heads: int, gate: float, zero_output: bool) -> None:
        super().__init__()
        self.heads = heads
        self.initial_gate = gate
        self.zero_output = zero_output
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


class Adapters(nn.ModuleDict):
    """The adapters, keyed by the number of the language layer that each stands before.

    They are called by hooks of those layers, whose code and weights' names stay `transformers`' own.
    """

    def __init__(self, config: Blip2Config) -> None:
        super().__init__(
            {
                str(layer): GatedCrossAttention(
                    config.language.width,
                    config.qformer.width,
                    config.language.heads,
                    config.adapters.gate,
                    config.adapters.zero_output,
                )
                for layer in config.adapter_layers
            }
        )
        self._image = _Image()

    def attach(self, layers: nn.ModuleList) -> None:
        """Put the adapters before the layers of a language model; once, for its lifetime."""
        for number, adapter in self.items():
            layers[int(number)].register_forward_pre_hook(_Hook(adapter, self._image), with_kwargs=True)

    @contextmanager
    def attending(self, image_tokens: Tensor) -> Iterator[None]:
        """Have the language model attend to ``image_tokens`` [n, queries, image width] within the context.

        Its batch is the same n rows, or each of them repeated side by side, as beam search does. Without the context,
        the language model is the plain one.
        """
        self._image.tokens = image_tokens
        try:
            yield
        finally:
            self._image.tokens = None


class _Image:
    """What a call's adapters attend to."""

    tokens: Tensor | None = None


class _Hook:
    """Applies an adapter to the hidden states that a language layer is called with.

    An object, so that a copy of the model has hooks with the copy's adapters.
    """

    def __init__(self, adapter: nn.Module, image: _Image) -> None:
        self._adapter, self._image = adapter, image

    def __call__(
        self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        tokens = self._image.tokens
        if tokens is None:
            return None
        hidden = args[0] if args else kwargs["hidden_states"]
        if len(tokens) != len(hidden):
            tokens = tokens.repeat_interleave(len(hidden) // len(tokens), dim=0)
        if getattr(layer, "gradient_checkpointing", False) and layer.training:
            # Hooks run outside of their layer's own checkpoint.
            adapted = layer._gradient_checkpointing_func(self._adapter, hidden, tokens)  # type: ignore[operator]
        else:
            adapted = self._adapter(hidden, tokens)
        return ((adapted, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": adapted})
