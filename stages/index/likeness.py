"""How much two pictures differ beyond their hashes: their 8x8 RGB thumbnails, compared in two ways."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stages.imaging.perceptual_hash import THUMBNAIL_BYTES, THUMBNAIL_SIDE

_DARK, _LIGHT = 8, 235  # outside of these a channel hardly shows a change of brightness: noise, clipping
_FLAT = 4  # grey levels of contrast below which any plain picture is a brighter version of any other
_GRID = np.arange(THUMBNAIL_BYTES).reshape(THUMBNAIL_SIDE, THUMBNAIL_SIDE, 3)
#: Per position of a picture (quarter turns, then the same mirrored) where each byte of its thumbnail is taken from.
_POSITIONS = [np.rot90(grid, turns).ravel() for grid in (_GRID, _GRID[:, ::-1]) for turns in range(4)]
_STEP = 8192  # rows compared at a time: some 30 MB of working memory


def differences(
    left: NDArray[np.uint8], right: NDArray[np.uint8], positions: bool = False
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Of thumbnails uint8 [n, 192], row by row: the mean absolute difference, and the relative difference.

    With `positions` the right one is turned and mirrored into that of its eight positions where the first is smallest.
    """
    plain, relative = np.empty(len(left), np.float32), np.empty(len(left), np.float32)
    for begin in range(0, len(left), _STEP):
        part = slice(begin, begin + _STEP)
        a, b = left[part].astype(np.float32), right[part].astype(np.float32)
        if positions:
            turned = np.stack([b[:, position] for position in _POSITIONS])  # [8, n, 192]
            best = np.abs(turned - a).mean(axis=2).argmin(axis=0)
            b = turned[best, np.arange(len(a))]
        plain[part] = np.abs(a - b).mean(axis=1)
        relative[part] = relative_difference(a, b)
    return plain, relative


def first_positions(thumbnails: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Each thumbnail [n, 192] in that of its eight positions whose bytes come first in alphabetical order."""
    best = np.ascontiguousarray(thumbnails)
    text = f"S{thumbnails.shape[1]}"
    for position in _POSITIONS[1:]:
        turned = np.ascontiguousarray(thumbnails[:, position])
        earlier = turned.view(text).ravel() < best.view(text).ravel()
        best = np.where(earlier[:, None], turned, best)
    return best


def relative_difference(left: NDArray[np.float32], right: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean absolute difference after the darker one is brightened by one common factor, in units of contrast.

    The factor is the median ratio over the channels that are neither nearly black nor nearly clipped; clipping at
    255 is repeated. Contrast is the smaller mean absolute deviation of the two; the result is infinite for plain
    pictures and for a factor above 2.
    """
    swap = left.sum(axis=1) > right.sum(axis=1)
    dark = np.where(swap[:, None], right, left)
    light = np.where(swap[:, None], left, right)
    informative = (dark > _DARK) & (light < _LIGHT)
    # Sorting with the uninformative ones last gives a median over the rest without a Python loop.
    ratios = np.sort(np.where(informative, light / np.maximum(dark, 1), np.inf), axis=1)
    count = informative.sum(axis=1)
    rows = np.arange(len(dark))
    middle = (ratios[rows, np.maximum(count - 1, 0) // 2] + ratios[rows, count // 2 * (count > 0)]) / 2
    factor = np.where(count > 0, middle, 1).astype(np.float32)
    gap = np.abs(np.minimum(dark * factor[:, None], 255) - light).mean(axis=1)
    contrast = np.minimum(_deviation(left), _deviation(right))
    comparable = (contrast >= _FLAT) & (factor <= 2)
    return np.where(comparable, gap / np.maximum(contrast, _FLAT), np.inf).astype(np.float32)


def _deviation(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.abs(values - values.mean(axis=1, keepdims=True)).mean(axis=1)
