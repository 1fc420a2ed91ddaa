"""Telling large letters from anatomy: the text detector takes ribs and vessels for writing, a reader does not.

Measured on real radiographs (docs/medical.md): large boxes of anatomy are read upright with a confidence below 0.6,
clear text with 0.99. Only large boxes are asked about: a small one costs little when it is filled for nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from stages.imaging.text_boxes import READER, Box, network

if TYPE_CHECKING:
    from PIL.Image import Image

#: Share of the image's longer side above which a box's shorter side makes it large.
_LARGE = 0.05
#: Least mean probability of what is read, upright, and turned or mirrored (where chance has more tries).
_UPRIGHT, _TURNED = 0.5, 0.9
#: Grey levels between neighbouring pixels, 98th percentile, of sharp print: several lines in one box cannot be read.
_SHARP = 110
_HEIGHT, _LEAST, _MOST = 48, 320, 1280  # pixels: what the network reads


class Reader:
    """PP-OCRv4's recogniser, asked how surely something is text, never what it says."""

    def __init__(self) -> None:
        self._session = network(*READER)
        self._input = self._session.get_inputs()[0].name

    def legible(self, image: Image, boxes: Iterable[Box]) -> list[Box]:
        """The boxes that are small, or hold something that can be read."""
        least = _LARGE * max(image.size)
        return [
            box
            for box in boxes
            if min(box.bottom - box.top, box.right - box.left) <= least
            or self._is_text(image.crop((box.left, box.top, box.right, box.bottom)))
        ]

    def _is_text(self, part: Image) -> bool:
        from PIL.Image import Transpose

        if self.confidence(part) >= _UPRIGHT or _sharpness(part) >= _SHARP:
            return True
        turns = (Transpose.ROTATE_90, Transpose.ROTATE_180, Transpose.ROTATE_270, Transpose.FLIP_LEFT_RIGHT)
        return any(self.confidence(part.transpose(turn)) >= _TURNED for turn in turns)

    def confidence(self, part: Image) -> float:
        """Mean probability of the characters read in a picture of one line, 0..1; 0 where none is read."""
        import numpy as np
        from PIL.Image import Resampling

        width = min(_MOST, max(16, round(_HEIGHT * part.width / part.height)))
        scaled = part.convert("RGB").resize((width, _HEIGHT), Resampling.BILINEAR)
        feed = np.zeros((1, 3, _HEIGHT, max(_LEAST, width)), dtype=np.float32)
        feed[0, :, :, :width] = (np.asarray(scaled, dtype=np.float32)[:, :, ::-1] / 127.5 - 1).transpose(2, 0, 1)
        steps = self._session.run(None, {self._input: feed})[0][0]  # [step, character], 0 is "nothing"
        best, sure = steps.argmax(axis=1), steps.max(axis=1)
        new = np.concatenate([[True], best[1:] != best[:-1]]) & (best != 0)
        return float(sure[new].mean()) if new.any() else 0.0


def _sharpness(part: Image) -> float:
    import numpy as np

    grey = np.asarray(part.convert("L"), dtype=np.float32)
    if min(grey.shape) < 2:
        return 0.0
    across, down = np.abs(np.diff(grey, axis=1))[:-1], np.abs(np.diff(grey, axis=0))[:, :-1]
    return float(np.percentile(np.maximum(across, down), 98))
