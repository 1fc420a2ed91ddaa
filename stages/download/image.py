"""Is it an image, is it whole, and which way is up: every stored picture is decoded once, to its last pixel."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass
from threading import Semaphore
from typing import TYPE_CHECKING

from stages.download.outcome import Failure, Reason

if TYPE_CHECKING:
    from PIL import Image

#: Format -> file extension of the raw shards.
EXTENSIONS = {"jpeg": "jpg", "png": "png", "webp": "webp", "gif": "gif", "bmp": "bmp", "tiff": "tif"}

_ORIENTATION = 0x0112  # EXIF tag
# What Pillow's decoders raise for broken data, and nothing wider: a bug must not pass for a bad image.
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, struct.error, zlib.error)


@dataclass(frozen=True)
class Picture:
    """A verified image and the bytes to store for it."""

    data: bytes
    format: str
    width: int
    height: int
    orientation: int
    """EXIF orientation of the fetched bytes, 1-8; 1 when there was none. Already applied to the rest."""

    @property
    def extension(self) -> str:
        """File extension without a dot."""
        return EXTENSIONS[self.format]


def sniff(data: bytes) -> str | None:
    """The image format by its first bytes, or None."""
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
    """Checks fetched bytes against the configured limits. Thread-safe."""

    def __init__(self, keep: tuple[str, ...], min_bytes: int, max_pixels: int, quality: int, decoders: int) -> None:
        """At most `decoders` images are held decoded at a time."""
        self._keep = frozenset(keep)
        self._min_bytes = min_bytes
        self._max_pixels = max_pixels
        self._quality = quality
        self._decoders = Semaphore(decoders)

    def __call__(self, data: bytes) -> Picture:
        """The picture in `data`. Raises Failure."""
        if len(data) < self._min_bytes:
            raise Failure(Reason.TOO_SMALL, f"{len(data)} bytes")
        kind = sniff(data)
        if kind is None:
            raise Failure(Reason.NOT_AN_IMAGE)
        if kind not in self._keep:
            raise Failure(Reason.UNSUPPORTED_FORMAT, f"{kind} is not in keep_formats")
        if kind == "webp" and int.from_bytes(data[4:8], "little") + 8 > len(data):
            raise Failure(Reason.TRUNCATED)
        with self._decoders:
            return self._decode(data, kind)

    def _decode(self, data: bytes, kind: str) -> Picture:
        from PIL import Image

        try:
            with Image.open(io.BytesIO(data), formats=[kind.upper()]) as image:
                width, height = image.size
                if width * height > self._max_pixels:
                    raise self._too_many_pixels(width, height)
                orientation = _orientation(image)
                if orientation == 1 and kind == "jpeg":
                    # Luminance at an eighth of the size: the whole entropy-coded stream is still read, which is what
                    # finds a cut or broken file, but most of the inverse transform is saved.
                    image.draft("L", (max(1, width // 8), max(1, height // 8)))
                image.load()
                if orientation == 1:
                    return Picture(data, kind, width, height, 1)
                upright = self._upright(image, kind)
                width, height = (height, width) if orientation >= 5 else (width, height)
                return Picture(upright, kind, width, height, orientation)
        except Image.DecompressionBombError:
            raise Failure(Reason.TOO_MANY_PIXELS, f"more than {self._max_pixels} pixels") from None
        except _BROKEN as error:
            cut = "truncated" in str(error).lower() or (kind == "png" and b"IEND" not in data[-64:])
            raise Failure(Reason.TRUNCATED if cut else Reason.CORRUPT) from None

    def _too_many_pixels(self, width: int, height: int) -> Failure:
        return Failure(Reason.TOO_MANY_PIXELS, f"{width}x{height} is more than {self._max_pixels} pixels")

    def _upright(self, image: Image.Image, kind: str) -> bytes:
        from PIL import ImageOps

        upright = ImageOps.exif_transpose(image)
        stored = io.BytesIO()
        options: dict[str, object] = {"icc_profile": image.info.get("icc_profile"), "exif": b""}
        if kind in ("jpeg", "webp"):
            options["quality"] = self._quality
        upright.save(stored, format=kind.upper(), **options)
        return stored.getvalue()


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 1-8; 1 where the tag is absent, out of range, or the EXIF block cannot be read."""
    if "exif" not in image.info:
        return 1
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except _BROKEN:
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1
