"""Parameter counts of the blocks that transformers are made of, without torch."""

from __future__ import annotations


def linear(inputs: int, outputs: int, bias: bool = True) -> int:
    """A linear layer's parameters."""
    return inputs * outputs + (outputs if bias else 0)


def norm(width: int) -> int:
    """A layer norm's scale and shift."""
    return 2 * width


def attention(width: int, memory: int | None = None) -> int:
    """Query, key, value and output projections with biases; keys and values from tokens of size ``memory``."""
    memory = width if memory is None else memory
    return 2 * linear(width, width) + 2 * linear(memory, width)


def feed_forward(width: int, hidden: int) -> int:
    """Two linear layers."""
    return linear(width, hidden) + linear(hidden, width)


def pre_norm_layer(width: int, hidden: int) -> int:
    """A transformer layer: self-attention, feed-forward, a norm for each."""
    return attention(width) + feed_forward(width, hidden) + 2 * norm(width)
