"""The part of an image that a training step shows, and boxes as tokens of it (`models/common/location_tokens.py`).

Loaded by worker processes: no torch here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from models.common.location_tokens import BINS, TOKENS, dequantise, quantise
from stages.base.contract import UserError

if TYPE_CHECKING:
    from stages.tokenizer.load import LoadedTokenizer


@dataclass(frozen=True)
class Crop:
    """A crop of an upright image (EXIF orientation applied), in pixels of the image as stored."""

    width: int
    """Of the whole image."""
    height: int
    """Of the whole image."""
    box: tuple[int, int, int, int]
    """left, top, right, bottom; right and bottom exclusive."""
    flipped: bool = False
    """Whether the crop is flipped left to right."""

    @classmethod
    def whole(cls, width: int, height: int) -> Crop:
        """All of an image, as it is."""
        return cls(width, height, (0, 0, width, height))


def location_ids(tokenizer: LoadedTokenizer) -> NDArray[np.int64]:
    """int64 [1000]: ids of `<loc_0>` to `<loc_999>`. Raises UserError when the tokenizer has not all of them."""
    try:
        return np.array([tokenizer.token_id(token) for token in TOKENS], dtype=np.int64)
    except KeyError as error:
        raise UserError(
            f"the tokenizer has no {error.args[0]}, so it cannot write boxes: train the model with a tokenizer "
            f"that has location tokens (tokenizer.location_tokens={BINS}, as tokenizer=bpe_64k)"
        ) from None


def location_bins(boxes: NDArray[np.float32], crop: Crop) -> NDArray[np.int64]:
    """int64 [n, 4]: the bins of boxes, float [n, 4] of left, top, right, bottom in pixels of the whole upright image.

    In the crop's coordinates, flipped when it is. What of a box lies outside the crop is cut off.
    """
    left, top, right, bottom = crop.box
    moved = np.asarray(boxes, dtype=np.float64) - (left, top, left, top)
    size = np.array([right - left, bottom - top] * 2, dtype=np.float64)
    moved = np.clip(moved, 0, size)
    if crop.flipped:
        moved[:, [0, 2]] = size[0] - moved[:, [2, 0]]
    return quantise(moved, size)


def boxes_of_bins(bins: NDArray[np.int64], crop: Crop) -> NDArray[np.float64]:
    """float64 [n, 4]: the boxes of bins, int [n, 4], in pixels of the upright image, by the middle of each bin."""
    left, top, right, bottom = crop.box
    size = np.array([right - left, bottom - top] * 2, dtype=np.float64)
    boxes = dequantise(bins, size)
    if crop.flipped:
        boxes[:, [0, 2]] = size[0] - boxes[:, [2, 0]]
    return boxes + np.array([left, top, left, top], dtype=np.float64)
