"""A picture looks the same to everything that reads it: transparency is white, 16 bits become 8, turns are applied."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stages.base.artifact import Artifact
from stages.download.image import Inspector
from stages.imaging.decode import UndecodableImage, decode_rgb, image_size, load
from stages.imaging.formats import FORMATS
from stages.ingest.medical.dicom import read_image
from stages.select.report.samples import picture
from stages.shard.writer import ImageResizer, StoredImage
from stages.signals.measure import _decoded
from stages.train.data.decode import decode
from stages.train.data.decode import image_size as training_size

SIDE = 64
COLOUR = (200, 60, 20)
inspect = Inspector(tuple(FORMATS), 1, 1_000_000, 95, 2)


def saved(image: Image.Image, form: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(colour: int, bits: int, rows: list[bytes], *more: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", SIDE, SIDE, bits, colour, 0, 0, 0))
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(more) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def of_pixels(clear: bytes, seen: bytes) -> list[bytes]:
    """Rows of a picture of two colours, side by side."""
    return [clear * (SIDE // 2) + seen * (SIDE // 2)] * SIDE


def rgba(grey: bool = False) -> Image.Image:
    """The left half black and transparent, the right half coloured and opaque."""
    pixels = np.zeros((SIDE, SIDE, 4), np.uint8)
    pixels[:, SIDE // 2 :] = (*((90, 90, 90) if grey else COLOUR), 255)
    return Image.fromarray(pixels)


def palette() -> Image.Image:
    image = Image.new("P", (SIDE, SIDE), 0)
    image.putpalette([0, 0, 0, *COLOUR])
    image.paste(1, (SIDE // 2, 0, SIDE, SIDE))
    return image


def premultiplied() -> bytes:
    """A TIFF whose ExtraSamples says that colours are multiplied by alpha already."""
    associated, plain = (struct.pack("<HHIHH", 338, 3, 1, value, 0) for value in (1, 2))
    return saved(rgba(), "TIFF").replace(plain, associated)


GREY = (90, 90, 90)
#: Picture -> (bytes, what its right half is); the left half is transparent, and black underneath.
PICTURES: dict[str, tuple[bytes, tuple[int, int, int]]] = {
    "rgba.png": (saved(rgba(), "PNG"), COLOUR),
    "grey-alpha.png": (saved(rgba(grey=True).convert("LA"), "PNG"), GREY),
    "palette-alphas.png": (saved(palette(), "PNG", transparency=b"\0\xff"), COLOUR),
    "palette-index.png": (saved(palette(), "PNG", transparency=0), COLOUR),
    "rgb-colour.png": (png(2, 8, of_pixels(bytes(3), bytes(COLOUR)), chunk(b"tRNS", bytes(6))), COLOUR),
    "grey-colour.png": (png(0, 8, of_pixels(b"\0", b"\x5a"), chunk(b"tRNS", bytes(2))), GREY),
    "grey-4-bits.png": (png(0, 4, [b"\x55" * 16 + b"\x66" * 16] * SIDE, chunk(b"tRNS", b"\0\5")), (102, 102, 102)),
    "grey-2-bits.png": (png(0, 2, [b"\x55" * 8 + b"\xaa" * 8] * SIDE, chunk(b"tRNS", b"\0\1")), (170, 170, 170)),
    "1-bit.png": (png(0, 1, [bytes(4) + b"\xff" * 4] * SIDE, chunk(b"tRNS", b"\0\0")), (255, 255, 255)),
    "grey-16-bits.png": (png(0, 16, of_pixels(b"\x12\x34", b"\x5a\x35"), chunk(b"tRNS", b"\x12\x34")), GREY),
    # The colour of the right half has the same upper bytes as the transparent one.
    "rgb-16-bits.png": (
        png(2, 16, of_pixels(b"\xc8\1\x3c\1\x14\1", b"\xc8\2\x3c\2\x14\2"), chunk(b"tRNS", b"\xc8\1\x3c\1\x14\1")),
        COLOUR,
    ),
    "rgba-16-bits.png": (png(6, 16, of_pixels(bytes(8), b"\xc8\2\x3c\2\x14\2\xff\xff")), COLOUR),
    "rgba.tif": (saved(rgba(), "TIFF"), COLOUR),
    "palette-alpha.tif": (saved(rgba().convert("PA"), "TIFF"), COLOUR),
    "premultiplied.tif": (premultiplied(), COLOUR),
    "index.gif": (saved(palette(), "GIF", transparency=0), COLOUR),
    "rgba.webp": (saved(rgba(), "WEBP", lossless=True, exact=True), COLOUR),
    "rgba.avif": (saved(rgba(), "AVIF", quality=100), COLOUR),
    "rgba.jp2": (saved(rgba(), "JPEG2000"), COLOUR),
    "rgba.ico": (saved(rgba(), "ICO", sizes=[(SIDE, SIDE)]), COLOUR),
}


def halves_of(rgb: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The mean colours of the left and right half, away from the edge between them."""
    pixels = np.asarray(rgb, dtype=float)
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=2)
    quarter = pixels.shape[1] // 4
    means = (pixels[:, :quarter].mean(axis=(0, 1)), pixels[:, -quarter:].mean(axis=(0, 1)))
    return tuple(map(tuple, np.rint(means).astype(int).tolist()))  # type: ignore[return-value]


def in_report(data: bytes, folder: Path) -> Image.Image:
    (folder / "raw-00000.tar").write_bytes(data)
    (folder / "manifest.json").write_text('{"fingerprint": "", "files": [{"name": "raw-00000.tar"}]}')
    uri = picture(Artifact(str(folder)), 0, 0, len(data))
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


@pytest.mark.parametrize("name", PICTURES)
def test_a_transparent_picture_is_white_to_every_reader(name: str, tmp_path: Path) -> None:
    data, right = PICTURES[name]
    fetched = inspect(data)
    stored = StoredImage(fetched.data, fetched.extension, fetched.width, fetched.height, "", True)
    scaled = ImageResizer(SIDE // 2, 100)(stored)
    seen = {
        "signals": _decoded(fetched.data),
        "training": decode(fetched.data),
        "training, reduced": decode(fetched.data, 4),
        "scaled in shards": Image.open(io.BytesIO(scaled.data)),
        "trained on scaled": decode(scaled.data),
        "report": in_report(fetched.data, tmp_path),
        "medical": read_image(data, 1_000_000).pixels,
    }
    assert fetched.data == data
    for reader, rgb in seen.items():
        left, other = halves_of(rgb)
        assert max(abs(value - 255) for value in left) <= 2, reader
        if not (reader == "medical" and name == "grey-16-bits.png"):  # scaled by its range, which is one value
            assert max(abs(a - b) for a, b in zip(other, right, strict=True)) <= 3, reader
    np.testing.assert_array_equal(np.asarray(seen["signals"]), seen["training"])


@pytest.mark.parametrize("form", ["L", "RGB", "CMYK"])
def test_training_and_signals_see_the_same_jpeg(form: str) -> None:
    y, x = np.mgrid[0:75, 0:101]
    picture = Image.fromarray(np.stack([x * 2, y * 3, (x + y) // 2], axis=-1).astype(np.uint8)).convert(form)
    data = saved(picture, "JPEG", quality=95)
    np.testing.assert_array_equal(np.asarray(decode_rgb(data)), decode(data))


@pytest.mark.parametrize(
    ("values", "mode"), [(np.full((8, 8), 40_000, np.int32), "I"), (np.full((8, 8), 40_000, np.uint16), "I;16")]
)
def test_greys_of_more_than_8_bits_keep_their_upper_byte_in_training_too(values: np.ndarray, mode: str) -> None:
    data = saved(Image.fromarray(values), "TIFF")
    assert load(data).image.mode == mode
    assert decode_rgb(data).getpixel((0, 0)) == (156,) * 3
    np.testing.assert_array_equal(decode(data), np.asarray(decode_rgb(data)))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_orientation_is_the_same_to_every_reader(form: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    y, x = np.mgrid[0:40, 0:64]
    data = saved(
        Image.fromarray(np.stack([x * 3, y * 6, x + y], axis=-1).astype(np.uint8)), form, exif=exif, quality=95
    )
    size = (40, 64) if orientation >= 5 else (64, 40)
    fetched = inspect(data)
    assert (fetched.width, fetched.height) == decode_rgb(data).size == image_size(data) == training_size(data) == size
    np.testing.assert_array_equal(np.asarray(decode_rgb(data)), decode(data))
    stored = np.asarray(decode_rgb(fetched.data), dtype=float)
    assert np.abs(stored - np.asarray(decode_rgb(data), dtype=float)).mean() < 3
    assert inspect(fetched.data).orientation == 1


def test_rows_that_are_missing_are_noticed_by_every_reader() -> None:
    rows = of_pixels(bytes(COLOUR), bytes(COLOUR))
    whole = png(2, 8, rows)
    start, end = whole.index(b"IDAT") - 4, whole.rindex(b"IEND") - 4
    cut = whole[:start] + chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows[:-1]))) + whole[end:]
    black = png(2, 8, [*rows[:-1], bytes(3 * SIDE)])  # whole, though its last row looks like a missing one
    assert decode_rgb(whole).size == decode_rgb(black).size == (SIDE, SIDE)
    for read in (decode_rgb, decode, inspect):
        with pytest.raises(Exception, match=r"cut short|truncated"):
            read(cut)


def test_an_icon_that_lies_about_its_size_is_measured_by_its_pictures() -> None:
    large = saved(Image.new("RGB", (1200, 900)), "PNG")
    data = b"\0\0\1\0\1\0" + struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(large), 22) + large
    assert image_size(data) == decode_rgb(data).size == (1200, 900)
    with pytest.raises(UndecodableImage, match="1200 x 900 pixels"):
        load(data, max_pixels=1_000_000)
