"""Boxes as location tokens of what the model is shown: `models/florence2/locations.py`, seen through a crop."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from models.florence2.locations import BINS, TOKENS, dequantise, quantise
from stages.base.contract import UserError
from stages.train.data.crop import View

if TYPE_CHECKING:
    from stages.tokenizer.load import LoadedTokenizer


def location_ids(tokenizer: LoadedTokenizer) -> NDArray[np.int64]:
    """int64 [1000]: ids of `<loc_0>` to `<loc_999>`. Raises UserError when the tokenizer has not all of them."""
    try:
        return np.array([tokenizer.token_id(token) for token in TOKENS], dtype=np.int64)
    except KeyError as error:
        raise UserError(
            f"the tokenizer has no {error.args[0]}, so it cannot write boxes: train the model with a tokenizer "
            f"that has location tokens (tokenizer.location_tokens={BINS}, as tokenizer=bpe_64k)"
        ) from None


def location_bins(boxes: NDArray[np.float32], view: View) -> NDArray[np.int64]:
    """int64 [n, 4]: the bins of boxes, float [n, 4] of left, top, right, bottom in pixels of the whole upright image.

    In the crop's coordinates, mirrored when the view is. What of a box lies outside the crop is cut off.
    """
    left, top, right, bottom = view.crop
    moved = np.asarray(boxes, dtype=np.float64) - (left, top, left, top)
    size = np.array([right - left, bottom - top] * 2, dtype=np.float64)
    moved = np.clip(moved, 0, size)
    if view.mirrored:
        moved[:, [0, 2]] = size[0] - moved[:, [2, 0]]
    return quantise(moved, size)


def located_boxes(bins: NDArray[np.int64], view: View) -> NDArray[np.float64]:
    """float64 [n, 4]: the boxes of bins, int [n, 4], in pixels of the upright image, by the middle of each bin."""
    left, top, right, bottom = view.crop
    size = np.array([right - left, bottom - top] * 2, dtype=np.float64)
    boxes = dequantise(bins, size)
    if view.mirrored:
        boxes[:, [0, 2]] = size[0] - boxes[:, [2, 0]]
    return boxes + np.array([left, top, left, top], dtype=np.float64)
