"""Is it an image, is it whole, and which way is up: every stored picture is decoded once, to its last pixel."""

from __future__ import annotations

import io
import re
import struct
import zlib
from dataclasses import dataclass
from threading import Semaphore
from typing import TYPE_CHECKING

from stages.download.outcome import Failure, Reason
from stages.download.pngdata import has_all_rows

if TYPE_CHECKING:
    from PIL import Image

#: Format -> file extension of the raw shards.
EXTENSIONS = {"jpeg": "jpg", "png": "png", "webp": "webp", "gif": "gif", "bmp": "bmp", "tiff": "tif"}
#: Most scans of a JPEG. Encoders write about ten; a file of some kilobytes can hold thousands, each of which makes the
#: decoder go over all pixels again.
MAX_SCANS = 100

_ORIENTATION = 0x0112  # EXIF tag
_SCAN, _END = b"\xff\xda", b"\xff\xd9"  # JPEG markers (ITU-T T.81, B.1.1.3)
_MARKER = re.compile(rb"\xff[^\0\xd0-\xd7\xff]")  # in a scan: neither a stuffed zero, nor a restart, nor filling
# Where Pillow looks for an orientation; TIFF has it among its own tags.
_METADATA = ("exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp")
# What Pillow's decoders raise for broken data, and nothing wider: a bug must not pass for a bad image.
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, struct.error, zlib.error)
# Metadata come with types of the file's own choice: a PNG may name a text `xmp`, which Pillow takes for bytes.
_BROKEN_METADATA = (*_BROKEN, TypeError, AttributeError, OverflowError)


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
    """Checks fetched bytes against the configured limits. Thread-safe.

    An animation (GIF, WebP, APNG) and a file of several pictures (MPO, TIFF) count by their first, which is what every
    later stage sees; the rest is stored with it, unread. What is stored can be decoded by any later stage: where only
    the metadata are broken, the picture is stored again without them.
    """

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
        if kind == "jpeg" and _scans(data) > MAX_SCANS:
            raise Failure(Reason.CORRUPT, f"more than {MAX_SCANS} scans")
        if kind == "webp" and _is_cut(data, kind):  # its decoder shows what there is, without complaint
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
                if kind == "png":
                    image.load()  # its metadata may follow the picture
                orientation = _orientation(image, kind)
                if orientation == 1 and kind == "jpeg":
                    # Luminance at an eighth of the size: the whole entropy-coded stream is still read, which is what
                    # finds a cut or broken file, but most of the inverse transform is saved.
                    image.draft("L", (max(1, width // 8), max(1, height // 8)))
                image.load()
                if kind == "png" and not has_all_rows(data):
                    raise Failure(Reason.TRUNCATED)
                if not _has_colours(image):
                    raise Failure(Reason.CORRUPT, "its palette or transparency cannot be read")
                if orientation == 1:
                    return Picture(data, kind, width, height, 1)
                return self._stored_again(image, kind, orientation or 1)
        except Image.DecompressionBombError:
            raise Failure(Reason.TOO_MANY_PIXELS, f"more than {self._max_pixels} pixels") from None
        except _BROKEN as error:
            cut = "truncated" in str(error).lower() or _is_cut(data, kind)
            raise Failure(Reason.TRUNCATED if cut else Reason.CORRUPT) from None

    def _too_many_pixels(self, width: int, height: int) -> Failure:
        return Failure(Reason.TOO_MANY_PIXELS, f"{width}x{height} is more than {self._max_pixels} pixels")

    def _stored_again(self, image: Image.Image, kind: str, orientation: int) -> Picture:
        """The picture upright and without metadata, but for its colour profile."""
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
        return Picture(stored.getvalue(), kind, upright.width, upright.height, orientation)


def _orientation(image: Image.Image, kind: str) -> int | None:
    """EXIF orientation 1-8 as Pillow's `exif_transpose` sees it; 1 where the tag is absent or out of range.

    None when the metadata cannot be read, over which every later reader would stumble.
    """
    if kind != "tiff" and not any(name in image.info for name in _METADATA):
        return 1
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except _BROKEN_METADATA:
        return None
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _has_colours(image: Image.Image) -> bool:
    """Whether palette and transparency, which are looked at only when colours are asked for, hold together."""
    if image.mode != "P" and "transparency" not in image.info:
        return True
    try:
        image.convert("RGBA" if image.has_transparency_data else "RGB")
    except (*_BROKEN_METADATA, AssertionError):  # the last: no palette where there must be one
        return False
    return True


def _scans(data: bytes) -> int:
    """Scans of a JPEG up to its end; what follows (a motion photo's film) may hold any bytes."""
    if data.count(_SCAN) <= MAX_SCANS:
        return 1
    scans, at = 0, 2
    while (found := _MARKER.search(data, at)) and found[0] != _END:
        scans += found[0] == _SCAN
        at = found.end() + int.from_bytes(data[found.end() : found.end() + 2], "big")
    return scans


def _is_cut(data: bytes, kind: str) -> bool:
    """Whether the bytes end before the file does, by what the format says of its end."""
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
