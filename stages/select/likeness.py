"""When two pictures are the same one: near hashes, confirmed on their thumbnails."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stages.imagehash import BITS, hash_words, thumbnail_array
from stages.select.config import Near
from stages.select.hamming import near_pairs

_DARK, _LIGHT = 8, 235  # outside of these a channel says little about a change of brightness: noise, clipping
_FLAT = 4  # grey levels of contrast below which any plain picture is a brighter version of any other


@dataclass(frozen=True)
class Pictures:
    """What is compared: hashes as words [n, bits / 64] and thumbnails uint8 [n, 192], row by row."""

    words: NDArray[np.uint64]
    thumbnails: NDArray[np.uint8]

    @staticmethod
    def of(table: pa.Table, hash_column: str) -> Pictures:
        """From the columns `hash_column` and `thumbnail` of a table without nulls in them."""
        words = hash_words(table[hash_column].to_pylist(), BITS[hash_column])
        return Pictures(words, thumbnail_array(table["thumbnail"].to_pylist()))

    def __len__(self) -> int:
        return len(self.words)

    def take(self, rows: NDArray[np.int64]) -> Pictures:
        """Some of the rows, in the order given."""
        return Pictures(self.words[rows], self.thumbnails[rows])


def same_pictures(
    queries: Pictures, base: Pictures, near: Near, only_earlier: bool = False
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Blocks of (row of `queries`, row of `base`) that show the same picture, each pair once, in no order.

    With `only_earlier` (for a set against itself) just the pairs whose base row is smaller than the query row.
    """
    for row, other in near_pairs(queries.words, base.words, near.radius, only_earlier):
        agree = confirmed(queries.thumbnails[row], base.thumbnails[other], near)
        if agree.any():
            yield row[agree], other[agree]


def confirmed(left: NDArray[np.uint8], right: NDArray[np.uint8], near: Near) -> NDArray[np.bool_]:
    """Whether thumbnails [n, 192] agree, row by row, in one of the ways that `near` allows."""
    if near.max_difference is None and near.max_relative_difference is None:
        return np.ones(len(left), dtype=bool)
    agree = np.zeros(len(left), dtype=bool)
    a, b = left.astype(np.float32), right.astype(np.float32)
    if near.max_difference is not None:
        agree |= np.abs(a - b).mean(axis=1) <= near.max_difference
    if near.max_relative_difference is not None:
        todo = np.flatnonzero(~agree)
        agree[todo] = relative_difference(a[todo], b[todo]) <= near.max_relative_difference
    return agree


def relative_difference(left: NDArray[np.float32], right: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean absolute difference after the darker one is brightened by one common factor, in units of contrast.

    The factor is the median ratio over the channels that are neither nearly black nor nearly clipped; clipping at
    255 is repeated. Contrast is the smaller mean absolute deviation of the two; the result is infinite for plain
    pictures and for a factor above 2.
    """
    swap = left.sum(axis=1) > right.sum(axis=1)
    dark = np.where(swap[:, None], right, left)
    light = np.where(swap[:, None], left, right)
    tells = (dark > _DARK) & (light < _LIGHT)
    # Sorting with the uninformative ones last gives a median over the rest without a Python loop.
    ratios = np.sort(np.where(tells, light / np.maximum(dark, 1), np.inf), axis=1)
    count = tells.sum(axis=1)
    rows = np.arange(len(dark))
    middle = (ratios[rows, np.maximum(count - 1, 0) // 2] + ratios[rows, count // 2 * (count > 0)]) / 2
    factor = np.where(count > 0, middle, 1).astype(np.float32)
    gap = np.abs(np.minimum(dark * factor[:, None], 255) - light).mean(axis=1)
    contrast = np.minimum(_deviation(left), _deviation(right))
    comparable = (contrast >= _FLAT) & (factor <= 2)
    return np.where(comparable, gap / np.maximum(contrast, _FLAT), np.inf).astype(np.float32)


def _deviation(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.abs(values - values.mean(axis=1, keepdims=True)).mean(axis=1)
