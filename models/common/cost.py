"""The figures of what a micro-batch costs: its shape, and FLOPs by kind.

An architecture's `cost.py` walks through its own forward pass with the `Tape` of `models/common/cost_tape.py` in place
of torch: every operation notes its FLOPs, and which tensors autograd keeps for the backward pass
(`models/common/cost_memory.py`). The blocks that transformers are made of are in `models/common/cost_blocks.py`.
"""

from __future__ import annotations

from dataclasses import dataclass


class NoCost(Exception):
    """The costs of a model are not known: its architecture has no formulas, or none for a part of this config."""


@dataclass(frozen=True)
class MicroBatch:
    """What one rank takes through the model at once; lengths in tokens, as padded."""

    images: int
    texts: int
    """Pairs of prompt and target."""
    prompt: int
    """Of a prompt, without the first token that the model adds."""
    target: int
    """Of a target, the end-of-text token included."""
    data_ranks: int = 1
    """Ranks over which a contrastive loss gathers."""


@dataclass
class Flops:
    """FLOPs of a part for the recorded micro-batch."""

    forward: float = 0.0
    input_gradient: float = 0.0
    """Of the backward pass, what carries the gradient on to the layers before."""
    weight_gradient: float = 0.0
    """Of the backward pass, the gradients of weights that learn."""
    recomputed: float = 0.0
    """Forward FLOPs that activation checkpointing spends a second time."""

    @property
    def backward(self) -> float:
        """Both kinds of gradients."""
        return self.input_gradient + self.weight_gradient

    @property
    def model(self) -> float:
        """What the computation needs however it is done: the FLOPs of MFU (PaLM, appendix B)."""
        return self.forward + self.backward

    @property
    def hardware(self) -> float:
        """What is executed, recomputation included."""
        return self.model + self.recomputed

    def divided(self, by: float) -> Flops:
        """Each of them divided."""
        return Flops(self.forward / by, self.input_gradient / by, self.weight_gradient / by, self.recomputed / by)
