"""Text burned into pixels: where it is, and what becomes of the picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from stages.imaging.text_boxes import Box, TextDetector, covered
from stages.ingest.medical.dicom import Picture, Region, Unusable
from stages.ingest.medical.legible import Reader

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

Policy = Literal["mask", "drop", "keep"]


class Finder:
    """Text in a medical picture: what the detector finds and, where it is large, the reader reads."""

    def __init__(self, side: int) -> None:
        self._detector = TextDetector(side)
        self._reader = Reader()

    def boxes(self, image: Image) -> list[Box]:
        """Boxes of text, from top to bottom."""
        return self._reader.legible(image, self._detector.boxes(image))


def without_text(
    picture: Picture,
    policy: Policy,
    finder: Finder | None,
    often: frozenset[str],
    margin: float,
    max_share: float,
) -> tuple[NDArray[np.uint8], int]:
    """The pixels that may be kept, and how many boxes of text were filled.

    `often`: modalities that `keep` refuses unless the header says that they hold no annotation. Raises Unusable.
    """
    if policy == "keep" or finder is None:
        if picture.burned_in == "YES" or (picture.modality in often and picture.burned_in != "NO"):
            raise Unusable("burned_in_annotation")
        return picture.pixels, 0
    from PIL import Image as Pillow

    pixels = _inside(picture.pixels, picture.regions)
    boxes = finder.boxes(Pillow.fromarray(pixels))
    if policy == "drop" and (boxes or picture.burned_in == "YES"):
        raise Unusable("burned_in_annotation")
    if not boxes and picture.burned_in == "YES" and pixels is picture.pixels:
        # The header knows of text that the detector did not see.
        raise Unusable("burned_in_annotation")
    size = (pixels.shape[1], pixels.shape[0])
    if boxes and covered(boxes, size).mean() > max_share:
        raise Unusable("mostly_text")
    return _filled(pixels, boxes, margin), len(boxes)


def _inside(pixels: NDArray[np.uint8], regions: tuple[Region, ...]) -> NDArray[np.uint8]:
    """Black outside the regions of an ultrasound picture, where they are stated and make sense."""
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
    """Every box, with its margin, in the median of the frame of pixels around it: no black blocks to learn from."""
    import numpy as np

    result = pixels.copy()
    height, width = pixels.shape[:2]
    mask = covered(boxes, (width, height), margin)
    for box in boxes:
        more = round(margin * min(box.bottom - box.top, box.right - box.left))
        top, left = max(0, box.top - more), max(0, box.left - more)
        bottom, right = min(height, box.bottom + more), min(width, box.right + more)
        around = slice(max(0, top - 2), bottom + 2), slice(max(0, left - 2), right + 2)
        ring = pixels[around][~mask[around]]
        result[top:bottom, left:right] = np.median(ring, axis=0).astype(np.uint8) if len(ring) else 0
    return result
