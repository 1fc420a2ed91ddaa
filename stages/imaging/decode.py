"""How an image is seen, everywhere: decoded whole, upright, 8-bit RGB, transparency on white.

The one place that decides it for the download's check, signals, hashes, thumbnails, shards, the report, benchmarks,
medical images, training and evaluation. Training decodes plain JPEGs without it (`stages/train/data/decode.py`), since
those have no transparency and nothing to turn.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from PIL import Image

from stages.imaging.formats import FORMATS, has_all_rows, icon_sizes, is_cut, png_chunks, sniff
from stages.imaging.metadata import without_metadata

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

T = TypeVar("T")

#: Increment it when the same bytes become other pixels: that measures images again (`stages/signals/cache.py`).
VERSION = 2
#: Most pixels of an image by its header, checked before memory is allocated (Pillow itself refuses more).
MAX_PIXELS = 178_000_000

_ORIENTATION = 0x0112  # EXIF tag
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Keys of `Image.info` in which Pillow looks for an orientation; TIFF has it among its own tags.
_METADATA = ("exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp")
# What Pillow's decoders raise on broken data, and no others: a bug must not be mistaken for a bad image. The file
# determines the types of its metadata: a PNG may name a text chunk `xmp`, which Pillow expects to be bytes.
_BROKEN = (
    *(OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, AttributeError, ArithmeticError),
    *(AssertionError, RuntimeError, struct.error, zlib.error),
)


class UndecodableImage(ValueError):
    """Bytes that are not a complete image of a format that can be decoded. The message quotes nothing of them."""

    def __init__(self, message: str, truncated: bool = False) -> None:
        super().__init__(message)
        self.truncated = truncated
        """Whether a part is missing, as opposed to broken."""


class TooManyPixels(UndecodableImage):
    """The header announces more pixels than allowed."""


@dataclass(frozen=True)
class LoadedImage:
    """The first picture of a file, decoded."""

    image: Image.Image
    """As the decoder gives it: in its own mode, and turned as it is stored (a TIFF: already upright)."""
    kind: str
    """A key of :data:`stages.imaging.formats.FORMATS`."""
    size: tuple[int, int]
    """Width and height before any reduction by `draft`, as stored."""
    orientation: int
    """EXIF orientation 1 to 8; 1 where there is none, or none that can be read."""
    data: bytes
    """The bytes that were decoded: those given, or what was left of them without metadata that hindered it."""
    metadata_readable: bool
    """False if a reader that looks at `data`'s metadata would fail."""

    def upright(self) -> Image.Image:
        """The image turned as its orientation says."""
        turn = _TURNS.get(self.orientation)
        return self.image if turn is None or self.kind == "tiff" else self.image.transpose(turn)


def load(
    data: bytes, max_pixels: int = MAX_PIXELS, draft: Callable[[Image.Image, int], None] | None = None
) -> LoadedImage:
    """Decode the first picture of a file to its last pixel; what is not pixels cannot make it fail.

    `draft` is called with a JPEG and its orientation before it is decoded, and may ask Pillow for a reduced one.
    Raises UndecodableImage.
    """
    return _first(data, lambda kind, part: _load(part, kind, max_pixels, draft))


def draft_small(image: Image.Image, orientation: int) -> None:
    """A `draft` for a check of the data: luminance at an eighth of the size still reads a JPEG's whole entropy-coded
    stream, which detects a truncated or broken file, but saves most of the inverse transform."""
    if orientation == 1:
        image.draft("L", (max(1, image.width // 8), max(1, image.height // 8)))


def image_size(data: bytes, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """(width, height) in pixels, upright, from the header alone where the format allows. Raises UndecodableImage."""
    return _first(data, lambda kind, part: _size(part, kind, max_pixels))


def decode_rgb(data: bytes) -> Image.Image:
    """Upright 8-bit RGB as :func:`to_rgb` defines it. Raises UndecodableImage."""
    return to_rgb(load(data).upright())


def to_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB of a decoded image: transparency on white, the upper byte of 16 bits, floats cut to 0..255."""
    seen = on_white(image)
    if seen.mode.startswith("I"):
        return Image.fromarray(_upper_byte(seen)).convert("RGB")
    return seen.convert("RGB")


def on_white(image: Image.Image) -> Image.Image:
    """The image as it looks on a white page: without transparency, in the bit depth it has; itself if it is opaque.

    Covers alpha channels (RGBA, LA, PA, premultiplied or not), palettes with transparent entries, and the one colour
    of grey and RGB images that a PNG or GIF declares transparent.
    """
    if not image.has_transparency_data:
        return image
    if image.mode.startswith("I"):
        return _grey_on_white(image)
    if image.mode == "RGBA" and image.getchannel("A").getextrema() == (255, 255):
        return image.convert("RGB")
    rgba = image.convert("LA").convert("RGBA") if image.mode == "La" else image.convert("RGBA")
    white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
    opaque = Image.alpha_composite(white, rgba).convert("RGB")
    return opaque.convert("L") if image.mode in ("1", "L", "LA", "La") else opaque


def _upper_byte(image: Image.Image) -> NDArray[np.uint8]:
    import numpy as np

    return np.clip(np.asarray(image) >> 8, 0, 255).astype(np.uint8)


def _grey_on_white(image: Image.Image) -> Image.Image:
    import numpy as np

    grey = np.array(image).astype(np.uint16)
    grey[grey == image.info["transparency"]] = 0xFFFF
    return Image.fromarray(grey)


def _first(data: bytes, work: Callable[[str, bytes], T]) -> T:
    """What `work` makes of the file, or if it fails, of the file with its EXIF alone, or without any metadata."""
    kind = sniff(data)
    if kind is None or kind not in FORMATS:
        raise UndecodableImage("its bytes are no image of a known format")
    failure: Exception | None = None
    for part in _parts(data, kind):
        try:
            return work(kind, part)
        except UndecodableImage:
            raise  # of the pixels
        except Image.DecompressionBombError:
            raise TooManyPixels(f"its image has more than {MAX_PIXELS} pixels") from None
        except _BROKEN as error:
            failure = failure or error
    if is_cut(data, kind) or "truncated" in str(failure).lower():
        raise UndecodableImage("its image is cut short", truncated=True) from None
    raise UndecodableImage("its image does not decode") from None


def _parts(data: bytes, kind: str) -> Iterator[bytes]:
    yield data
    bare = without_metadata(data, kind)
    if bare is not data:
        with_exif = without_metadata(data, kind, keep_exif=True)
        if with_exif not in (data, bare):
            yield with_exif
        yield bare


def _load(data: bytes, kind: str, max_pixels: int, draft: Callable[[Image.Image, int], None] | None) -> LoadedImage:
    if kind == "webp" and is_cut(data, kind):  # its decoder shows what there is, without an error
        raise UndecodableImage("its image is cut short", truncated=True)
    with _opened(data, kind, max_pixels) as opened:
        image: Image.Image = opened
        size = image.size
        if kind == "png":
            image.load()  # metadata may follow the picture
        orientation = _orientation(image, kind)
        if kind == "jpeg" and draft is not None:
            draft(image, orientation or 1)
        image.load()
        if kind == "png":
            if not _is_whole(image, data):
                raise UndecodableImage("its image is cut short", truncated=True)
            image = _with_transparency(image, data)
        if image.mode == "P" and image.palette is None:
            raise UndecodableImage("its palette is missing")
        if image.mode == "P" or "transparency" in image.info:
            to_rgb(image.crop((0, 0, 1, 1)))  # a palette or transparency that does not fit shows only here
        return LoadedImage(image, kind, size, orientation or 1, data, orientation is not None)


def _size(data: bytes, kind: str, max_pixels: int) -> tuple[int, int]:
    with _opened(data, kind, max_pixels) as image:
        if kind == "png" and any(name in data for name in (b"eXIf", b"Raw profile type exif", b"tiff:Orientation")):
            image.load()  # its metadata may follow the picture
        width, height = image.size
        # Pillow gives a TIFF's size upright.
        return (height, width) if kind != "tiff" and (_orientation(image, kind) or 1) >= 5 else (width, height)


def _opened(data: bytes, kind: str, max_pixels: int) -> Image.Image:
    if kind == "ico":
        for width, height in icon_sizes(data):  # Pillow decodes an icon as it opens it
            _check_pixels(width, height, max_pixels)
    image = Image.open(io.BytesIO(data), formats=[FORMATS[kind].pillow])
    _check_pixels(*image.size, max_pixels)
    return image


def _check_pixels(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise TooManyPixels(f"its image has {width} x {height} pixels, more than {max_pixels}")


def _orientation(image: Image.Image, kind: str) -> int | None:
    """EXIF orientation 1 to 8; 1 if the tag is absent or out of range, None if the metadata cannot be read."""
    if kind != "tiff" and not any(name in image.info for name in _METADATA):
        return 1
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except _BROKEN:
        return None
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _is_whole(image: Image.Image, data: bytes) -> bool:
    """Whether all rows of a decoded PNG were there. Missing ones are zero, so the last row shows it of most images."""
    if not image.info.get("interlace") and any(image.crop((0, image.height - 1, image.width, image.height)).tobytes()):
        return True
    return has_all_rows(data)


def _with_transparency(image: Image.Image, data: bytes) -> Image.Image:
    """A decoded PNG whose transparent colour has the depth of its pixels; Pillow leaves it at that of the file."""
    colour = image.info.get("transparency")
    if not isinstance(colour, int | tuple):
        return image
    header = next(data[start:end] for kind, start, end in png_chunks(data) if kind == b"IHDR")
    depth = header[8]
    most = (1 << depth) - 1
    if isinstance(colour, tuple):
        if depth == 16:
            return _deep_rgb(image, data, colour)
        image.info["transparency"] = tuple(value & most for value in colour)
    elif image.mode == "L":
        image.info["transparency"] = (colour & most) * 255 // most
    return image


def _deep_rgb(image: Image.Image, data: bytes, colour: tuple[int, ...]) -> Image.Image:
    """Pillow keeps the upper bytes only, by which colours near the transparent one would vanish with it."""
    import cv2
    import numpy as np

    deep = cv2.imdecode(np.frombuffer(without_metadata(data, "png"), np.uint8), cv2.IMREAD_UNCHANGED)
    if deep is not None and deep.ndim == 3 and deep.shape[2] == 4 and deep.shape[:2] == image.size[::-1]:
        alpha = np.where(deep[..., 3], 255, 0)
    else:
        alpha = np.where((np.asarray(image) == [value >> 8 for value in colour]).all(axis=2), 0, 255)
    del image.info["transparency"]
    image.putalpha(Image.fromarray(alpha.astype(np.uint8)))
    return image
