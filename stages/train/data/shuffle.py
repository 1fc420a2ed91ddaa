"""The order in which samples are seen: a pure function from a place in an endless stream to a sample's number.

Epoch ``e`` fills places ``e * size`` to ``(e + 1) * size - 1``, each sample once. Neither ranks nor restarts appear
here, so the only state of a data loader is the step. A data set of up to ``block * window * lanes`` samples is permuted
as a whole. A larger one is permuted so that reads stay near each other:

- Blocks of neighbouring samples are permuted, and the row of them is cut into *lanes* of equal length. The stream takes
  from the lanes in turn, so a rank that serves some lanes reads those lanes' blocks only.
- Within a lane, samples are permuted in windows of some blocks. Windows of different lanes end at different places:
  what is read for the first time comes as a steady flow, not all at once.

Permutations sort the outputs of SplitMix64 (Steele et al. 2014), not numpy's generators, whose streams may change from
one version to the next: a run resumed after an upgrade sees the same order.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

BLOCK = 256
"""Neighbouring samples that are read about the same time."""
WINDOW = 16
"""Blocks of a lane whose samples are shuffled into each other."""
LANES = 32
"""Runs of blocks that are read side by side; up to so many ranks share no block."""

_GAMMA = 0x9E3779B97F4A7C15
_U64 = 0xFFFFFFFFFFFFFFFF


class Order:
    """A seeded permutation of ``range(size)`` for every epoch.

    Memory grows with the number of blocks (4 bytes each), not of samples; so does the time to enter an epoch. After
    that a place costs the permutation of the window it is in, which stays in memory while the window lasts.
    """

    def __init__(self, size: int, seed: int, block: int = BLOCK, window: int = WINDOW, lanes: int = LANES) -> None:
        """Raises ValueError when any of the sizes is below 1."""
        if size < 1:
            raise ValueError("an order needs at least one sample")
        if min(block, window, lanes) < 1:
            raise ValueError(f"block {block}, window {window} and lanes {lanes} must each be at least 1")
        self.size = size
        self.seed = seed
        self.block = block
        self.span = block * window
        self.lanes = lanes
        self._shift = np.arange(lanes, dtype=np.int64) * self.span // lanes
        """By how much a lane's first window is shorter than the others."""
        lane = np.arange(lanes + 1, dtype=np.int64)
        self._starts = lane * (size // lanes) + np.minimum(lane, size % lanes)
        """Where in the row of blocks each lane begins, [lanes + 1]: lane l has as many samples as places are l modulo
        the number of lanes."""
        self._whole = lru_cache(maxsize=2)(self._whole_epoch)
        self._blocks = lru_cache(maxsize=2)(self._shuffled_blocks)
        self._window = lru_cache(maxsize=4 * lanes)(self._shuffled_window)

    def __call__(self, places: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(epochs, sample numbers), each int64 [n], at places of the stream, int64 [n]."""
        epochs, within = np.divmod(places, self.size)
        numbers = np.empty_like(within)
        find = self._by_permutation if self.size <= self.span * self.lanes else self._by_lane
        for epoch, rows in grouped(epochs):
            numbers[rows] = find(epoch, within[rows])
        return epochs, numbers

    def lane(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Which lane each place takes its sample from, int64 [n]. No block is in two lanes, but where one ends."""
        return places % self.size % self.lanes

    def _by_permutation(self, epoch: int, within: NDArray[np.int64]) -> NDArray[np.int64]:
        return self._whole(epoch)[within].astype(np.int64)

    def _by_lane(self, epoch: int, within: NDArray[np.int64]) -> NDArray[np.int64]:
        index, lane = np.divmod(within, self.lanes)
        window, place = np.divmod(index + self._shift[lane], self.span)
        spots = np.empty_like(within)
        for key, rows in grouped(window * self.lanes + lane):
            first, shuffled = self._window(epoch, key % self.lanes, key // self.lanes)
            # The first window of a lane begins inside the span that it is a part of.
            at = place[rows] - (int(self._shift[key % self.lanes]) if key < self.lanes else 0)
            spots[rows] = first + shuffled[at]
        return self._in_blocks(epoch, spots)

    def _in_blocks(self, epoch: int, spots: NDArray[np.int64]) -> NDArray[np.int64]:
        """Sample numbers at spots of the row of shuffled blocks."""
        blocks, short = self._blocks(epoch)
        # The data's last block may be short: what comes behind it stands nearer to the front by what it lacks.
        lacking = -self.size % self.block
        spots = spots + lacking * (spots >= (short + 1) * self.block - lacking)
        return blocks[spots // self.block].astype(np.int64) * self.block + spots % self.block

    def _shuffled_blocks(self, epoch: int) -> tuple[NDArray[np.int32], int]:
        """The epoch's order of blocks, and where in it the data's last block stands."""
        blocks = permutation(-(-self.size // self.block), self.seed, epoch)
        return blocks, int(blocks.argmax())

    def _shuffled_window(self, epoch: int, lane: int, window: int) -> tuple[int, NDArray[np.int32]]:
        """Where in the row of blocks a lane's window begins, and the order of its samples."""
        length = int(self._starts[lane + 1] - self._starts[lane])
        shift = int(self._shift[lane])
        first = max(0, window * self.span - shift)
        last = min(length, (window + 1) * self.span - shift)
        return int(self._starts[lane]) + first, permutation(last - first, self.seed, epoch, lane, window)

    def _whole_epoch(self, epoch: int) -> NDArray[np.int32]:
        return permutation(self.size, self.seed, epoch)


def permutation(size: int, *key: int) -> NDArray[np.int32]:
    """A permutation of ``range(size)`` drawn by a key of integers: int32 [size]; equal on any machine."""
    salt = len(key)
    for part in key:
        salt = int(_mixed(np.array([(salt ^ part) & _U64], dtype=np.uint64))[0])
    # All different, since SplitMix64's finaliser maps 64 bits one to one: the order does not depend on how ties sort.
    drawn = _mixed(np.arange(1, size + 1, dtype=np.uint64) * np.uint64(_GAMMA) + np.uint64(salt))
    return np.argsort(drawn).astype(np.int32)


def grouped(keys: NDArray[np.int64]) -> list[tuple[int, NDArray[np.int64]]]:
    """(key, places of it in `keys`) for every key there is."""
    if len(keys) and (keys == keys[0]).all():
        return [(int(keys[0]), np.arange(len(keys)))]
    rows = np.argsort(keys, kind="stable")
    ordered = keys[rows]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])) if len(keys) else np.empty(0, int)
    return list(zip(ordered[starts].tolist(), np.split(rows, starts[1:]), strict=True)) if len(keys) else []


def _mixed(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    x = x + np.uint64(_GAMMA)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
