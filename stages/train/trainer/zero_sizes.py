"""How much ZeRO sends, and updates, at a time: shared by DeepSpeed's configuration and the plan of its memory."""

from __future__ import annotations

#: Gradients that are reduced together, in elements: a message of 200 MB in bf16 uses a network's full rate. A bucket is
#: allocated whole, twice where communication overlaps with backward, and copied for the collective, so more
#: (DeepSpeed's 500 million) only costs memory.
_MOST = 100_000_000

#: Below it nothing is saved that counts: 34 MB in bf16, which takes longer to send than to start sending.
_LEAST = 1 << 24

#: A bucket's copies may take as much as the gradients themselves, so that a small model has several: this many, of
#: those that are neither too large nor too small. Models of 600 million weights that learn have the largest.
_BUCKETS = 6


def bucket_elements(trainable: float) -> int:
    """Most elements of a bucket of gradients, and of a group of weights that the optimizer updates together.

    ``trainable``: weights of one copy of the model that learn. The optimizer has a group's gradients in float32.
    Depends on the model alone, so that a checkpoint's groups are the same on any number of ranks.
    """
    return min(_MOST, max(_LEAST, int(trainable) // _BUCKETS))
