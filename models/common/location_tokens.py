"""Boxes as text: 1,000 location tokens per axis (Florence-2, section 3; Pix2Seq's quantisation)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

BINS = 1000
"""Bins per axis, and location tokens in the vocabulary."""

TOKENS = tuple(f"<loc_{bin}>" for bin in range(BINS))
"""The special tokens, in order; x and y share them."""

Box = tuple[float, float, float, float]

_BOX = re.compile(r"<loc_(\d{1,3})>" * 4)


def quantise(values: ArrayLike, size: ArrayLike) -> NDArray[np.int64]:
    """Bins of coordinates in [0, size], any shape: ``clamp(floor(value / (size / 1000)), 0, 999)``."""
    import numpy as np

    return np.clip(np.floor(np.asarray(values) / (np.asarray(size) / BINS)), 0, BINS - 1).astype(np.int64)


def dequantise(bins: ArrayLike, size: ArrayLike) -> NDArray[np.float64]:
    """The middles of bins: ``(bin + 0.5) * size / 1000``, at most half a bin from the values that were quantised."""
    import numpy as np

    return (np.asarray(bins) + 0.5) * np.asarray(size) / BINS


def boxes_from_text(text: str, width: float, height: float) -> list[Box]:
    """Every run of four location tokens in a text, as x1, y1, x2, y2 in a space of ``width`` x ``height``.

    Spaces between tokens are ignored.
    """
    import numpy as np

    runs = _BOX.findall(re.sub(r">\s+<", "><", text))
    boxes = dequantise(np.array(runs, dtype=np.int64).reshape(-1, 4), (width, height) * 2)
    return [(x1, y1, x2, y2) for x1, y1, x2, y2 in boxes.tolist()]
