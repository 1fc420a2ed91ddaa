"""The order in which samples are seen: a pure function from a position in the run to a sample's number.

The run is one endless stream of positions. Epoch ``e`` fills positions ``e * size`` to ``(e + 1) * size - 1``, each
sample once; optimizer step ``s`` takes positions ``s * global_batch`` onwards. Neither ranks nor restarts appear here,
so the only state of a data loader is the step.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

BLOCK = 1024
"""Samples that lie together on disk and are read about the same time."""
WINDOW = 64
"""Blocks shuffled into each other; a data set of up to BLOCK x WINDOW samples is permuted as a whole."""


class Order:
    """A seeded permutation of ``range(size)`` for every epoch.

    Blocks of neighbouring samples are permuted, then the samples within each window of blocks. Memory grows with the
    number of blocks, not of samples.
    """

    def __init__(self, size: int, seed: int, block: int = BLOCK, window: int = WINDOW) -> None:
        if size < 1:
            raise ValueError("an order needs at least one sample")
        self.size = size
        self.seed = seed
        self.block = block
        self.window = window
        self._blocks = lru_cache(maxsize=2)(self._shuffled_blocks)
        self._samples = lru_cache(maxsize=4)(self._shuffled_window)

    def __call__(self, position: int) -> tuple[int, int]:
        """(epoch, sample number) at a position of the stream."""
        epoch, place = divmod(position, self.size)
        window = place // (self.block * self.window)
        # The last block of the data may be short; windows after the one that drew it start earlier by what it lacks.
        if self._start(epoch, window + 1) <= place:
            window += 1
        return epoch, int(self._samples(epoch, window)[place - self._start(epoch, window)])

    def _start(self, epoch: int, window: int) -> int:
        blocks, short = self._blocks(epoch)
        full = min(window * self.window, len(blocks))
        return full * self.block - (-self.size % self.block if short < full else 0)

    def _shuffled_blocks(self, epoch: int) -> tuple[np.ndarray, int]:
        """The epoch's order of blocks, and where in it the data's last block stands."""
        blocks = np.random.default_rng([self.seed, epoch, 0]).permutation(-(-self.size // self.block))
        return blocks, int(blocks.argmax())

    def _shuffled_window(self, epoch: int, window: int) -> np.ndarray:
        blocks = self._blocks(epoch)[0][window * self.window : (window + 1) * self.window]
        samples = [np.arange(b * self.block, min((b + 1) * self.block, self.size)) for b in blocks]
        return np.random.default_rng([self.seed, epoch, 1, window]).permutation(np.concatenate(samples))
