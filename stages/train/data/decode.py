"""From an image's stored bytes to pixels, at the scale that is needed. Loaded by worker processes: no torch here.

The image is always upright (EXIF orientation applied), RGB, 8 bits, and of several pictures in a file the first.
"""

from __future__ import annotations

import io
import math
import re
import struct
import zlib
from dataclasses import dataclass

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from stages.train.data.dataset import DamagedSample

#: Scales a JPEG can be decoded at without computing the pixels in between: the divisors of its blocks' 8 x 8.
SHRINKS = (1, 2, 4, 8)
#: Most pixels of an image by its header, checked before memory is allocated: the most that `download` lets through.
MAX_PIXELS = 178_000_000

_ORIENTATION = 0x0112  # EXIF tag
# An EXIF entry of an upright image: tag, type SHORT, one value, 1; in both byte orders.
_UPRIGHT = re.compile(rb"\x12\x01\x03\0\x01\0\0\0\x01\0|\x01\x12\0\x03\0\0\0\x01\0\x01")
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# What Pillow's decoders raise for broken data, and nothing wider: a bug must not look like a damaged sample.
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, struct.error, zlib.error)
_BROKEN_METADATA = (*_BROKEN, TypeError, AttributeError, OverflowError)


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
            with Image.open(io.BytesIO(data)) as image:
                width, height = image.size
                if _orientation(image, data) >= 5:
                    width, height = height, width
        except (*_BROKEN, Image.DecompressionBombError) as error:
            raise DamagedSample(_reason(error)) from None
    _check_size(width, height)
    return width, height


def decode(data: bytes, shrink: int = 1) -> NDArray[np.uint8]:
    """uint8 [ceil(height / shrink), ceil(width / shrink), 3]: RGB, upright, scaled down by 1, 2, 4 or 8.

    Pixel (x, y) covers the pixels from (shrink * x, shrink * y) of the whole image, whatever its size; what is missing
    at the right and bottom repeats the edge. JPEGs are scaled as they are decoded (libjpeg-turbo, in the DCT's domain),
    others by means over squares. Transparency is ignored and 16-bit grey is cut to its upper 8. Depends on the
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
    try:
        with Image.open(io.BytesIO(data)) as image:
            return _decoded(image, data, shrink)
    except (*_BROKEN, Image.DecompressionBombError) as error:
        raise DamagedSample(_reason(error)) from None


def _decoded(image: Image.Image, data: bytes, shrink: int) -> NDArray[np.uint8]:
    width, height = image.size
    _check_size(width, height)
    if data[:4] == b"RIFF" and int.from_bytes(data[4:8], "little") + 8 > len(data):
        raise DamagedSample("its image is cut short")  # the WebP decoder shows what there is, without an error
    orientation = _orientation(image, data)
    if orientation == 1 and image.format in ("JPEG", "MPO"):
        image.draft(None, (max(1, width // shrink), max(1, height // shrink)))
    image.load()
    scaled = 2 ** math.ceil(math.log2(width / image.width))  # what draft did of it: sizes are rounded up
    pixels = _rgb(image if orientation == 1 else image.transpose(_TURNS[orientation]))
    return _reduced(pixels, shrink // scaled)


def _rgb(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode.startswith("I;16"):
        grey = (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # Pillow warns of the direct way; the colours are the same
    # A copy: Pillow's own memory is freed with the image.
    return np.array(image.convert("RGB"))


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
    if width * height > MAX_PIXELS:
        raise DamagedSample(f"its image has {width} x {height} pixels, more than {MAX_PIXELS}")


def _reason(error: Exception) -> str:
    if isinstance(error, Image.DecompressionBombError):
        return f"its image has more than {MAX_PIXELS} pixels"
    if isinstance(error, UnidentifiedImageError):
        return "its bytes are no image of a known format"
    return "its image is cut short" if "truncated" in str(error).lower() else "its image does not decode"


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


def _orientation(image: Image.Image, data: bytes) -> int:
    """EXIF orientation 1 to 8; 1 where there is none, or none that can be read."""
    # Pillow turns a TIFF by itself; and decodes a PNG to its end to find metadata that follow the picture.
    if image.format == "TIFF" or (image.format not in ("JPEG", "MPO") and not _may_be_turned(data)):
        return 1
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except _BROKEN_METADATA:
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1
