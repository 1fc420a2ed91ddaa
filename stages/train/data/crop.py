"""What of an image a training step sees: the part that is cut out, and whether it is mirrored."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class View:
    """A crop of an upright image (EXIF orientation applied), in pixels of the image as stored."""

    width: int
    """Of the whole image."""
    height: int
    """Of the whole image."""
    crop: tuple[int, int, int, int]
    """left, top, right, bottom; right and bottom exclusive."""
    mirrored: bool = False
    """Whether the crop is mirrored left to right."""

    @classmethod
    def whole(cls, width: int, height: int) -> View:
        """All of an image, as it is."""
        return cls(width, height, (0, 0, width, height))
