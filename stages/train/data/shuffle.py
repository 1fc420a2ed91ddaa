"""The order in which samples are seen: a pure function from a position in an endless sequence to a sample's number.

Epoch ``e`` fills positions ``e * size`` to ``(e + 1) * size - 1``, each sample once. Neither ranks nor restarts appear
here, so the only state of a data loader is the step. A data set of up to ``block * window * stripes`` samples is
permuted as a whole. A larger one is permuted so that reads stay near each other:

- Blocks of neighbouring samples are permuted, and their sequence is cut into *stripes* of equal length. Positions take
  from the stripes in turn (as striped disks do), so a rank that serves some stripes reads those stripes' blocks only.
- Within a stripe, samples are permuted in windows of some blocks. Windows of different stripes end at different
  positions, so blocks are first read at a steady rate, not all at once.

Permutations sort the outputs of SplitMix64 (Steele et al. 2014), not numpy's generators, whose streams may change from
one version to the next: a run resumed after an upgrade sees the same order.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from stages.base.splitmix import GAMMA, mixed

BLOCK = 256
"""Neighbouring samples, which are read at about the same time."""
WINDOW = 16
"""Blocks of a stripe whose samples are shuffled together."""
STRIPES = 32
"""Stripes that are read in parallel; up to this number, ranks share no block."""

_U64 = 0xFFFFFFFFFFFFFFFF


class Shuffle:
    """A seeded permutation of ``range(size)`` for every epoch.

    Memory grows with the number of blocks (4 bytes each), not of samples; so does the time to enter an epoch. After
    that a position costs the permutation of the window it is in, which stays cached.
    """

    def __init__(self, size: int, seed: int, block: int = BLOCK, window: int = WINDOW, stripes: int = STRIPES) -> None:
        """Raises ValueError when any of the sizes is below 1."""
        if size < 1:
            raise ValueError("a shuffle needs at least one sample")
        if min(block, window, stripes) < 1:
            raise ValueError(f"block {block}, window {window} and stripes {stripes} must each be at least 1")
        self.size = size
        self.seed = seed
        self.block = block
        self.span = block * window
        self.stripes = stripes
        self._shift = np.arange(stripes, dtype=np.int64) * self.span // stripes
        """By how much a stripe's first window is shorter than the others."""
        stripe = np.arange(stripes + 1, dtype=np.int64)
        self._starts = stripe * (size // stripes) + np.minimum(stripe, size % stripes)
        """Slot at which each stripe begins, [stripes + 1]: stripe s has as many samples as there are positions of which
        the remainder modulo the number of stripes is s. A slot is a sample's position in the sequence of blocks."""
        self._whole = lru_cache(maxsize=2)(self._whole_epoch)
        self._blocks = lru_cache(maxsize=2)(self._shuffled_blocks)
        self._window = lru_cache(maxsize=4 * stripes)(self._shuffled_window)

    def __call__(self, positions: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(epochs, sample numbers), each int64 [n], at positions of the sequence, int64 [n]."""
        epochs, within = np.divmod(positions, self.size)
        numbers = np.empty_like(within)
        number_at = self._by_permutation if self.size <= self.span * self.stripes else self._by_stripe
        for epoch, rows in grouped(epochs):
            numbers[rows] = number_at(epoch, within[rows])
        return epochs, numbers

    def stripe(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """The stripe each position takes its sample from, int64 [n]. Two stripes share a block only where one ends."""
        return positions % self.size % self.stripes

    def _by_permutation(self, epoch: int, within: NDArray[np.int64]) -> NDArray[np.int64]:
        return self._whole(epoch)[within].astype(np.int64)

    def _by_stripe(self, epoch: int, within: NDArray[np.int64]) -> NDArray[np.int64]:
        index, stripe = np.divmod(within, self.stripes)
        window, position = np.divmod(index + self._shift[stripe], self.span)
        slots = np.empty_like(within)
        for key, rows in grouped(window * self.stripes + stripe):
            first, shuffled = self._window(epoch, key % self.stripes, key // self.stripes)
            # The first window of a stripe begins inside the span that it is a part of.
            at = position[rows] - (int(self._shift[key % self.stripes]) if key < self.stripes else 0)
            slots[rows] = first + shuffled[at]
        return self._in_blocks(epoch, slots)

    def _in_blocks(self, epoch: int, slots: NDArray[np.int64]) -> NDArray[np.int64]:
        """Sample numbers at slots of the sequence of shuffled blocks."""
        blocks, short = self._blocks(epoch)
        # The data's last block may be short: the slots behind it move forward by the samples it is missing.
        missing = -self.size % self.block
        slots = slots + missing * (slots >= (short + 1) * self.block - missing)
        return blocks[slots // self.block].astype(np.int64) * self.block + slots % self.block

    def _shuffled_blocks(self, epoch: int) -> tuple[NDArray[np.int32], int]:
        """The epoch's order of blocks, and the position of the data's last block in it."""
        blocks = permutation(-(-self.size // self.block), self.seed, epoch)
        return blocks, int(blocks.argmax())

    def _shuffled_window(self, epoch: int, stripe: int, window: int) -> tuple[int, NDArray[np.int32]]:
        """The slot at which a stripe's window begins, and the order of its samples."""
        length = int(self._starts[stripe + 1] - self._starts[stripe])
        shift = int(self._shift[stripe])
        first = max(0, window * self.span - shift)
        last = min(length, (window + 1) * self.span - shift)
        return int(self._starts[stripe]) + first, permutation(last - first, self.seed, epoch, stripe, window)

    def _whole_epoch(self, epoch: int) -> NDArray[np.int32]:
        return permutation(self.size, self.seed, epoch)


def permutation(size: int, *key: int) -> NDArray[np.int32]:
    """A permutation of ``range(size)`` seeded by a key of integers: int32 [size]; equal on any machine."""
    salt = len(key)
    for part in key:
        salt = int(mixed(np.array([(salt ^ part) & _U64], dtype=np.uint64))[0])
    # All different, since SplitMix64's finaliser maps 64 bits one to one: the order does not depend on how ties sort.
    drawn = mixed(np.arange(1, size + 1, dtype=np.uint64) * np.uint64(GAMMA) + np.uint64(salt))
    return np.argsort(drawn).astype(np.int32)


def sample_seeds(seed: int, epochs: NDArray[np.int64], numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """A seed for each sample of an epoch, int64 [n], from the run's seed, its epoch and its number, int64 [n] each."""
    salt = np.full(len(numbers), seed & _U64, dtype=np.uint64)
    for part in (epochs, numbers):
        salt = mixed(salt ^ part.astype(np.uint64))
    return salt.view(np.int64)


def grouped(keys: NDArray[np.int64]) -> list[tuple[int, NDArray[np.int64]]]:
    """(key, its positions in `keys`) for every distinct key."""
    if len(keys) and (keys == keys[0]).all():
        return [(int(keys[0]), np.arange(len(keys)))]
    rows = np.argsort(keys, kind="stable")
    ordered = keys[rows]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])) if len(keys) else np.empty(0, int)
    return list(zip(ordered[starts].tolist(), np.split(rows, starts[1:]), strict=True)) if len(keys) else []
