"""From an image's stored bytes to pixels, at the scale that is needed. Loaded by worker processes: no torch here.

The image is always upright (EXIF orientation applied), RGB, 8 bits, on white where it is transparent, and of several
pictures in a file the first. Plain JPEGs go the fast way; for all others `stages/imaging/decode.py` decides.
"""

from __future__ import annotations

import math
import re
import struct
from dataclasses import dataclass

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from stages.imaging import decode as imaging
from stages.train.data.dataset import DamagedSample

#: Scales a JPEG can be decoded at without computing the pixels in between: the divisors of its blocks' 8 x 8.
SHRINKS = (1, 2, 4, 8)
# An EXIF entry of an upright image: tag, type SHORT, one value, 1; in both byte orders.
_UPRIGHT = re.compile(rb"\x12\x01\x03\0\x01\0\0\0\x01\0|\x01\x12\0\x03\0\0\0\x01\0\x01")


@dataclass(frozen=True)
class _Frame:
    """The content of a JPEG's header."""

    width: int
    height: int
    plain: bool
    """Whether libjpeg-turbo alone can make upright RGB of it."""


# The latest image and its header: a sample's size is read before its pixels are decoded.
_latest: tuple[bytes, _Frame | None] | None = None


def image_size(data: bytes) -> tuple[int, int]:
    """(width, height) of an image in pixels, upright, from its header alone. Raises DamagedSample."""
    frame = _frame(data)
    if frame is not None and frame.plain:
        width, height = frame.width, frame.height
    else:
        try:
            width, height = imaging.image_size(data)
        except imaging.UndecodableImage as error:
            raise DamagedSample(str(error)) from None
    _check_size(width, height)
    return width, height


def decode(data: bytes, shrink: int = 1) -> NDArray[np.uint8]:
    """uint8 [ceil(height / shrink), ceil(width / shrink), 3]: RGB, upright, scaled down by 1, 2, 4 or 8.

    Pixel (x, y) covers the pixels from (shrink * x, shrink * y) of the whole image, whatever its size; what is missing
    at the right and bottom repeats the edge. JPEGs are scaled as they are decoded (libjpeg-turbo, in the DCT's domain),
    others by means over squares. Transparency is white and 16-bit grey is cut to its upper 8. Depends on the
    arguments alone. Raises DamagedSample when the data are broken, cut short, no image, or of too many pixels.
    """
    if shrink not in SHRINKS:
        raise ValueError(f"shrink is {shrink}, not one of {SHRINKS}")
    frame = _frame(data)
    if frame is not None and frame.plain:
        _check_size(frame.width, frame.height)
        height, width = math.ceil(frame.height / shrink), math.ceil(frame.width / shrink)
        # Of the smallest images several scales have the same size, and libjpeg-turbo chooses among them.
        if shrink == 1 or max(width, height) >= 8:
            try:
                pixels = simplejpeg.decode_jpeg(data, "RGB", min_height=height, min_width=width, strict=True)
            except ValueError:
                pass  # Pillow decides: `strict` also refuses what decodes, such as stray bytes before the end
            else:
                if pixels.shape == (height, width, 3):
                    return pixels

    def draft(image: Image.Image, orientation: int) -> None:
        if orientation == 1:
            image.draft(None, (max(1, image.width // shrink), max(1, image.height // shrink)))

    try:
        loaded = imaging.load(data, draft=draft)
    except imaging.UndecodableImage as error:
        raise DamagedSample(str(error)) from None
    # What draft did of it: sizes are rounded up. A TIFF's size is given upright, as its image is.
    scaled = 2 ** math.ceil(math.log2(loaded.size[0] / loaded.image.width))
    # A copy: Pillow's own memory is freed with the image.
    return _reduced(np.array(imaging.to_rgb(loaded.upright())), shrink // scaled)


def _reduced(pixels: NDArray[np.uint8], shrink: int) -> NDArray[np.uint8]:
    """Means over squares of `shrink` x `shrink` pixels, the edge repeated up to a whole square."""
    if shrink == 1:
        return pixels
    height, width = pixels.shape[:2]
    down, right = -height % shrink, -width % shrink
    if down or right:
        pixels = np.asarray(cv2.copyMakeBorder(pixels, 0, down, 0, right, cv2.BORDER_REPLICATE), dtype=np.uint8)
    size = (pixels.shape[1] // shrink, pixels.shape[0] // shrink)
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _check_size(width: int, height: int) -> None:
    if width * height > imaging.MAX_PIXELS:
        raise DamagedSample(f"its image has {width} x {height} pixels, more than {imaging.MAX_PIXELS}")


def _frame(data: bytes) -> _Frame | None:
    global _latest
    latest = _latest
    if latest is None or latest[0] is not data:
        latest = _latest = (data, _jpeg_frame(data))
    return latest[1]


def _jpeg_frame(data: bytes) -> _Frame | None:
    """A JPEG's size from its header (ITU-T T.81, B.1 and B.2.2); None where Pillow must read it."""
    if data[:2] != b"\xff\xd8":
        return None
    at, end, frame = 2, len(data), None
    while at + 4 <= end and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # filling
            at += 1
            continue
        if marker == 0xDA:  # the first scan: the header ends here
            return None if frame is None else _Frame(*frame[:2], frame[2] and not _may_be_turned(data[:at]))
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            if at + 10 > end:
                return None
            precision, height, width, components = struct.unpack_from(">BHHB", data, at + 4)
            if not height or not width:
                return None
            # Four components are CMYK or YCCK, which Adobe's files store inverted.
            frame = (width, height, precision == 8 and components in (1, 3))
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def _may_be_turned(head: bytes) -> bool:
    """Whether metadata can hold an orientation other than upright. Most have none, and this check is fast."""
    if b"tiff:Orientation" in head:
        return True
    if b"Exif\0\0" not in head and b"Raw profile type exif" not in head and b"eXIf" not in head and b"EXIF" not in head:
        return False
    rest = _UPRIGHT.sub(b"", head)
    return b"\x12\x01" in rest or b"\x01\x12" in rest or b"Raw profile type exif" in rest
