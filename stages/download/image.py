"""Verifies fetched images: format, completeness, orientation. Each is decoded once, to the last pixel."""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from threading import Semaphore
from typing import TYPE_CHECKING

from stages.download.outcome import Failure, Reason

if TYPE_CHECKING:
    from PIL import Image

#: Format -> file extension of the raw shards.
EXTENSIONS = {"jpeg": "jpg", "png": "png", "webp": "webp", "gif": "gif", "bmp": "bmp", "tiff": "tif"}
#: Maximum number of scans of a JPEG. Encoders write about ten; a file of a few kilobytes can contain thousands, each of
#: which makes the decoder process all pixels again.
MAX_SCANS = 100

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
# Adam7: first column and row of each pass, and the distance to the next (PNG specification, 8.2).
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_INFLATE_BYTES = 1 << 20
_ORIENTATION = 0x0112  # EXIF tag
_SCAN, _END = b"\xff\xda", b"\xff\xd9"  # JPEG markers (ITU-T T.81, B.1.1.3)
_MARKER = re.compile(rb"\xff[^\0\xd0-\xd7\xff]")  # in a scan: neither a stuffed zero, nor a restart, nor filling
# Keys of `Image.info` in which Pillow looks for an orientation; TIFF has it among its own tags.
_METADATA = ("exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp")
# Exceptions of Pillow's decoders on broken data, and no others: a bug must not be mistaken for a bad image.
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, struct.error, zlib.error)
# The file determines the types of its metadata: a PNG may name a text chunk `xmp`, which Pillow expects to be bytes.
_BROKEN_METADATA = (*_BROKEN, TypeError, AttributeError, OverflowError)


@dataclass(frozen=True)
class VerifiedImage:
    """A verified image and the bytes to store for it."""

    data: bytes
    format: str
    width: int
    height: int
    orientation: int
    """EXIF orientation of the fetched bytes, 1-8; 1 if there was none. Already applied to the other fields."""

    @property
    def extension(self) -> str:
        """File extension without a dot."""
        return EXTENSIONS[self.format]


def sniff(data: bytes) -> str | None:
    """The image format according to the first bytes, or None."""
    if data[:3] == b"\xff\xd8\xff":
        return "jpeg"
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return "png"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data[:6] in (b"GIF87a", b"GIF89a"):
        return "gif"
    if data[:2] == b"BM" and len(data) > 14 and data[6:10] == b"\0\0\0\0":
        return "bmp"
    if data[:4] in (b"II*\0", b"MM\0*"):
        return "tiff"
    return None


class Inspector:
    """Checks fetched bytes against the configured limits. Thread-safe.

    Of an animation (GIF, WebP, APNG) or a file of several images (MPO, TIFF) only the first is checked, which is the
    one that later stages use; the others are stored with it. Later stages can decode whatever is stored: if only the
    metadata are broken, the image is re-encoded without them.
    """

    def __init__(self, keep: tuple[str, ...], min_bytes: int, max_pixels: int, quality: int, decoders: int) -> None:
        """At most `decoders` images are decoded at the same time."""
        self._keep = frozenset(keep)
        self._min_bytes = min_bytes
        self._max_pixels = max_pixels
        self._quality = quality
        self._decoders = Semaphore(decoders)

    def __call__(self, data: bytes) -> VerifiedImage:
        """The verified image in `data`. Raises Failure."""
        if len(data) < self._min_bytes:
            raise Failure(Reason.TOO_SMALL, f"{len(data)} bytes")
        kind = sniff(data)
        if kind is None:
            raise Failure(Reason.NOT_AN_IMAGE)
        if kind not in self._keep:
            raise Failure(Reason.UNSUPPORTED_FORMAT, f"{kind} is not in keep_formats")
        if kind == "jpeg" and _scans(data) > MAX_SCANS:
            raise Failure(Reason.CORRUPT, f"more than {MAX_SCANS} scans")
        if kind == "webp" and _is_cut(data, kind):  # its decoder accepts truncated data
            raise Failure(Reason.TRUNCATED)
        with self._decoders:
            return self._decode(data, kind)

    def _decode(self, data: bytes, kind: str) -> VerifiedImage:
        from PIL import Image

        try:
            with Image.open(io.BytesIO(data), formats=[kind.upper()]) as image:
                width, height = image.size
                if width * height > self._max_pixels:
                    raise self._too_many_pixels(width, height)
                if kind == "png":
                    image.load()  # its metadata may follow the image data
                orientation = _orientation(image, kind)
                if orientation == 1 and kind == "jpeg":
                    # Luminance at an eighth of the size still reads the whole entropy-coded stream, which detects a
                    # truncated or broken file, but saves most of the inverse transform.
                    image.draft("L", (max(1, width // 8), max(1, height // 8)))
                image.load()
                if kind == "png" and not has_all_rows(data):
                    raise Failure(Reason.TRUNCATED)
                if not _has_colours(image):
                    raise Failure(Reason.CORRUPT, "its palette or transparency cannot be read")
                if orientation == 1:
                    return VerifiedImage(data, kind, width, height, 1)
                return self._re_encode(image, kind, orientation or 1)
        except Image.DecompressionBombError:
            raise Failure(Reason.TOO_MANY_PIXELS, f"more than {self._max_pixels} pixels") from None
        except _BROKEN as error:
            cut = "truncated" in str(error).lower() or _is_cut(data, kind)
            raise Failure(Reason.TRUNCATED if cut else Reason.CORRUPT) from None

    def _too_many_pixels(self, width: int, height: int) -> Failure:
        return Failure(Reason.TOO_MANY_PIXELS, f"{width}x{height} is more than {self._max_pixels} pixels")

    def _re_encode(self, image: Image.Image, kind: str, orientation: int) -> VerifiedImage:
        """The image upright and without metadata other than its colour profile."""
        from PIL import ImageOps

        upright = image.copy() if orientation == 1 else ImageOps.exif_transpose(image)
        profile = image.info.get("icc_profile")
        upright.info = {key: upright.info[key] for key in ("transparency",) if key in upright.info}
        options: dict[str, object] = {"exif": b""} if kind != "tiff" else {}
        if isinstance(profile, bytes) and len(profile) < 65_000:  # a JPEG segment; real profiles are far smaller
            options["icc_profile"] = profile
        if kind in ("jpeg", "webp"):
            options["quality"] = self._quality
        stored = io.BytesIO()
        upright.save(stored, format=kind.upper(), **options)
        return VerifiedImage(stored.getvalue(), kind, upright.width, upright.height, orientation)


def _orientation(image: Image.Image, kind: str) -> int | None:
    """EXIF orientation 1-8 as read by Pillow's `exif_transpose`; 1 if the tag is absent or out of range.

    None if the metadata cannot be read, on which every later reader would fail.
    """
    if kind != "tiff" and not any(name in image.info for name in _METADATA):
        return 1
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except _BROKEN_METADATA:
        return None
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _has_colours(image: Image.Image) -> bool:
    """Whether palette and transparency are consistent, which decoders check only on conversion to colours."""
    if image.mode != "P" and "transparency" not in image.info:
        return True
    try:
        image.convert("RGBA" if image.has_transparency_data else "RGB")
    except (*_BROKEN_METADATA, AssertionError):  # AssertionError: a missing palette
        return False
    return True


def _scans(data: bytes) -> int:
    """Number of scans of a JPEG up to its end marker; what follows (a motion photo's video) may be any bytes."""
    if data.count(_SCAN) <= MAX_SCANS:
        return 1
    scans, at = 0, 2
    while (marker := _MARKER.search(data, at)) and marker[0] != _END:
        scans += marker[0] == _SCAN
        at = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2], "big")
    return scans


def _is_cut(data: bytes, kind: str) -> bool:
    """Whether the file is truncated, according to its format's length field or end marker."""
    match kind:
        case "webp":
            return int.from_bytes(data[4:8], "little") + 8 > len(data)
        case "bmp":
            return int.from_bytes(data[2:6], "little") > len(data)
        case "png":
            return b"IEND" not in data[-64:]
        case "jpeg":
            return _END not in data[-1024:]
        case "gif":
            return not data.rstrip(b"\0").endswith(b";")
    return False


def has_all_rows(data: bytes) -> bool:
    """Whether the image data of a PNG that Pillow has decoded inflate to as many bytes as its header announces.

    Pillow accepts a PNG whose compressed data end early, with the remaining rows black. Inflates a megabyte at a time
    and stops as soon as the answer is known.
    """
    missing, inflate = 0, zlib.decompressobj()
    for kind, body in _chunks(data):
        if kind == b"IHDR":
            missing = _row_bytes(body)
        elif kind == b"IDAT":
            rest = body
            while rest and missing > 0 and not inflate.eof:
                missing -= len(inflate.decompress(rest, _INFLATE_BYTES))
                rest = inflate.unconsumed_tail
            while missing > 0 and not inflate.eof and (piece := inflate.decompress(b"", _INFLATE_BYTES)):
                missing -= len(piece)
    return missing <= 0


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 8
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        yield data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        at += 12 + length


def _row_bytes(header: bytes) -> int:
    """Bytes of all rows including filter bytes, from the contents of the header chunk."""
    width, height, bits, colour, _, _, interlace = struct.unpack_from(">IIBBBBB", header)
    bits *= _CHANNELS[colour]
    if not interlace:
        return int(height * (1 + (width * bits + 7) // 8))
    total = 0
    for x, y, across, down in _PASSES:
        columns, lines = -(-(width - x) // across), -(-(height - y) // down)
        if columns > 0 and lines > 0:
            total += lines * (1 + (columns * bits + 7) // 8)
    return int(total)
