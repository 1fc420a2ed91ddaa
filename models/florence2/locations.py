"""Boxes as text: 1,000 location tokens per axis (Florence-2, section 3; Pix2Seq's quantisation)."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

BINS = 1000
"""Bins per axis, and location tokens in the vocabulary."""

TOKENS = tuple(f"<loc_{bin}>" for bin in range(BINS))
"""The special tokens, in order; x and y share them."""

Box = tuple[float, float, float, float]

_BOX = re.compile(r"<loc_(\d{1,3})>" * 4)


def quantise(value: float, size: float) -> int:
    """Bin of a coordinate in [0, size]: ``clamp(floor(value / (size / 1000)), 0, 999)``."""
    return min(max(math.floor(value / (size / BINS)), 0), BINS - 1)


def dequantise(bin: int, size: float) -> float:
    """The middle of a bin: ``(bin + 0.5) * size / 1000``, at most half a bin from what was quantised."""
    return (bin + 0.5) * size / BINS


def box_to_text(box: Sequence[float], width: float, height: float) -> str:
    """Four location tokens for a box given as x1, y1, x2, y2 in a space of ``width`` x ``height``."""
    x1, y1, x2, y2 = box
    bins = quantise(x1, width), quantise(y1, height), quantise(x2, width), quantise(y2, height)
    return "".join(TOKENS[bin] for bin in bins)


def boxes_from_text(text: str, width: float, height: float) -> list[Box]:
    """Every run of four location tokens in a text, as x1, y1, x2, y2; spaces between tokens are ignored."""
    found = _BOX.findall(re.sub(r">\s+<", "><", text))
    return [
        (
            dequantise(int(x1), width),
            dequantise(int(y1), height),
            dequantise(int(x2), width),
            dequantise(int(y2), height),
        )
        for x1, y1, x2, y2 in found
    ]
