"""Text burned into pixels: detection, and masking or rejection of the image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from stages.imaging.text_boxes import Box, TextDetector, covered
from stages.ingest.medical.dicom import DecodedImage, Region, Unusable
from stages.ingest.medical.text_recognition import TextRecognizer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

Policy = Literal["mask", "drop", "keep"]


class BurnedInTextDetector:
    """Text in a medical image: what the text detector finds and, for large boxes, the recogniser can read."""

    def __init__(self, side: int) -> None:
        self._detector = TextDetector(side)
        self._recognizer = TextRecognizer()

    def boxes(self, image: Image) -> list[Box]:
        """Boxes of text, from top to bottom."""
        return self._recognizer.legible(image, self._detector.boxes(image))


def without_text(
    image: DecodedImage,
    policy: Policy,
    detector: BurnedInTextDetector | None,
    suspect_modalities: frozenset[str],
    margin: float,
    max_share: float,
) -> tuple[NDArray[np.uint8], int]:
    """(pixels that may be kept, number of boxes of text that were filled). Raises Unusable.

    `suspect_modalities`: those that policy `keep` rejects unless the header states that there is no annotation.
    `margin`: growth of a box before it is filled, in heights of its text. `max_share`: largest share of text, 0..1.
    """
    if policy == "keep" or detector is None:
        if image.burned_in == "YES" or (image.modality in suspect_modalities and image.burned_in != "NO"):
            raise Unusable("burned_in_annotation")
        return image.pixels, 0
    from PIL import Image as Pillow

    pixels = _inside(image.pixels, image.regions)
    boxes = detector.boxes(Pillow.fromarray(pixels))
    if policy == "drop" and (boxes or image.burned_in == "YES"):
        raise Unusable("burned_in_annotation")
    if not boxes and image.burned_in == "YES" and pixels is image.pixels:
        # The header states text that the detector did not find.
        raise Unusable("burned_in_annotation")
    size = (pixels.shape[1], pixels.shape[0])
    if boxes and covered(boxes, size).mean() > max_share:
        raise Unusable("mostly_text")
    return _filled(pixels, boxes, margin), len(boxes)


def _inside(pixels: NDArray[np.uint8], regions: tuple[Region, ...]) -> NDArray[np.uint8]:
    """Black outside the regions of an ultrasound image, where the header states valid ones."""
    import numpy as np

    if not regions:
        return pixels
    mask = np.zeros(pixels.shape[:2], dtype=np.bool_)
    for left, top, right, bottom in regions:
        mask[top:bottom, left:right] = True
    if not mask.any():
        return pixels
    kept = pixels.copy()
    kept[~mask] = 0
    return kept


def _filled(pixels: NDArray[np.uint8], boxes: list[Box], margin: float) -> NDArray[np.uint8]:
    """Every box and its margin filled with the median of the pixels around it: black blocks would be learnt."""
    import numpy as np

    result = pixels.copy()
    height, width = pixels.shape[:2]
    mask = covered(boxes, (width, height), margin)
    for box in boxes:
        grow = round(margin * min(box.bottom - box.top, box.right - box.left))
        top, left = max(0, box.top - grow), max(0, box.left - grow)
        bottom, right = min(height, box.bottom + grow), min(width, box.right + grow)
        around = slice(max(0, top - 2), bottom + 2), slice(max(0, left - 2), right + 2)
        ring = pixels[around][~mask[around]]
        result[top:bottom, left:right] = np.median(ring, axis=0).astype(np.uint8) if len(ring) else 0
    return result
