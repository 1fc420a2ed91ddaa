"""Text recognition that separates large letters from anatomy: the text detector takes ribs and vessels for text.

Measured on real radiographs (docs/medical.md): large boxes of anatomy are read upright with a confidence below 0.6,
clear text with 0.99. Only large boxes are checked: filling a small one without need costs little.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from stages.imaging.text_boxes import READER, Box, network

if TYPE_CHECKING:
    from PIL.Image import Image

#: Share of the image's longer side above which a box's shorter side makes it large.
_LARGE = 0.05
#: Minimum mean probability of the characters, upright, and rotated or mirrored (four attempts, so a higher one).
_UPRIGHT, _TURNED = 0.5, 0.9
#: Grey levels between neighbouring pixels, 98th percentile, of sharp print: several lines in one box cannot be read.
_SHARP = 110
_HEIGHT, _MIN_WIDTH, _MAX_WIDTH = 48, 320, 1280  # pixels: the network's input


class TextRecognizer:
    """PP-OCRv4's recogniser, used for its confidence that a box holds text; what it reads is never used."""

    def __init__(self) -> None:
        self._session = network(*READER)
        self._input = self._session.get_inputs()[0].name

    def legible(self, image: Image, boxes: Iterable[Box]) -> list[Box]:
        """The boxes that are small or hold legible text."""
        limit = _LARGE * max(image.size)
        return [
            box
            for box in boxes
            if min(box.bottom - box.top, box.right - box.left) <= limit
            or self._is_text(image.crop((box.left, box.top, box.right, box.bottom)))
        ]

    def _is_text(self, part: Image) -> bool:
        from PIL.Image import Transpose

        if self.confidence(part) >= _UPRIGHT or _sharpness(part) >= _SHARP:
            return True
        turns = (Transpose.ROTATE_90, Transpose.ROTATE_180, Transpose.ROTATE_270, Transpose.FLIP_LEFT_RIGHT)
        return any(self.confidence(part.transpose(turn)) >= _TURNED for turn in turns)

    def confidence(self, part: Image) -> float:
        """Mean probability of the characters recognised in an image of one line, 0..1; 0 where there are none."""
        import numpy as np
        from PIL.Image import Resampling

        width = min(_MAX_WIDTH, max(16, round(_HEIGHT * part.width / part.height)))
        scaled = part.convert("RGB").resize((width, _HEIGHT), Resampling.BILINEAR)
        feed = np.zeros((1, 3, _HEIGHT, max(_MIN_WIDTH, width)), dtype=np.float32)
        feed[0, :, :, :width] = (np.asarray(scaled, dtype=np.float32)[:, :, ::-1] / 127.5 - 1).transpose(2, 0, 1)
        steps = self._session.run(None, {self._input: feed})[0][0]  # [step, character]; character 0 is CTC's blank
        best, probability = steps.argmax(axis=1), steps.max(axis=1)
        new = np.concatenate([[True], best[1:] != best[:-1]]) & (best != 0)
        return float(probability[new].mean()) if new.any() else 0.0


def _sharpness(part: Image) -> float:
    import numpy as np

    grey = np.asarray(part.convert("L"), dtype=np.float32)
    if min(grey.shape) < 2:
        return 0.0
    across, down = np.abs(np.diff(grey, axis=1))[:-1], np.abs(np.diff(grey, axis=0))[:, :-1]
    return float(np.percentile(np.maximum(across, down), 98))
