"""Boxes as location tokens: 1,000 bins per axis of what the model is shown (Florence-2, Xiao et al. 2023)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stages.contract import UserError
from stages.train.view import View

if TYPE_CHECKING:
    from stages.tokenizer.load import LoadedTokenizer

#: Bins of an axis; `<loc_0>` is the leftmost or topmost.
BINS = 1000


def location_ids(tokenizer: LoadedTokenizer) -> NDArray[np.int64]:
    """int64 [1000]: ids of `<loc_0>` to `<loc_999>`. Raises UserError when the tokenizer has not all of them."""
    try:
        return np.array([tokenizer.token_id(f"<loc_{number}>") for number in range(BINS)], dtype=np.int64)
    except KeyError as error:
        raise UserError(
            f"the tokenizer has no {error.args[0]}, so it cannot write boxes: train the model with a tokenizer "
            f"that has location tokens (tokenizer.location_tokens={BINS}, as tokenizer=bpe_64k)"
        ) from None


def location_bins(boxes: NDArray[np.float32], view: View) -> NDArray[np.int64]:
    """int64 [n, 4]: the bins of boxes, float [n, 4] of left, top, right, bottom in pixels of the whole upright image.

    clamp(floor(x / (width / 1000)), 0, 999) in the crop's coordinates, mirrored when the view is. What of a box lies
    outside the crop is cut off.
    """
    left, top, right, bottom = view.crop
    moved = np.asarray(boxes, dtype=np.float64) - (left, top, left, top)
    size = np.array([right - left, bottom - top] * 2, dtype=np.float64)
    moved = np.clip(moved, 0, size)
    if view.mirrored:
        moved[:, [0, 2]] = size[0] - moved[:, [2, 0]]
    return np.clip(np.floor(moved / (size / BINS)), 0, BINS - 1).astype(np.int64)


def located_boxes(bins: NDArray[np.int64], view: View) -> NDArray[np.float64]:
    """float64 [n, 4]: the boxes of bins, int [n, 4], in pixels of the upright image, by the middle of each bin."""
    left, top, right, bottom = view.crop
    size = np.array([right - left, bottom - top] * 2, dtype=np.float64)
    boxes = (np.asarray(bins, dtype=np.float64) + 0.5) * (size / BINS)
    if view.mirrored:
        boxes[:, [0, 2]] = size[0] - boxes[:, [2, 0]]
    return boxes + np.array([left, top, left, top], dtype=np.float64)
