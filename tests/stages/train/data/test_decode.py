"""From stored bytes to pixels: every kind of image upright, at every scale; broken ones told from bugs."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stages.imaging import decode as imaging
from stages.train.data.dataset import DamagedSample
from stages.train.data.decode import decode, image_size


def stored(image: Image.Image, format: str = "JPEG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format=format, **options)
    return file.getvalue()


@pytest.fixture
def picture() -> Image.Image:
    """Smooth, of odd size, and unlike itself however it is turned."""
    y, x = np.mgrid[0:75, 0:101]
    return Image.fromarray(np.stack([x * 2, y * 3, (x + y) // 2], axis=-1).astype(np.uint8))


def difference(a: Any, b: Any) -> float:
    return float(np.abs(np.asarray(a, dtype=float) - np.asarray(b, dtype=float)).mean())


@pytest.mark.parametrize("shrink", [1, 2, 4, 8])
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_each_pixel_is_the_mean_of_the_square_it_stands_for(picture: Image.Image, format: str, shrink: int) -> None:
    data = stored(picture, format, quality=95)
    whole = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    padded = np.pad(whole, ((0, -75 % shrink), (0, -101 % shrink), (0, 0)), mode="edge").astype(float)
    height, width = math.ceil(75 / shrink), math.ceil(101 / shrink)
    squares = padded.reshape(height, shrink, width, shrink, 3).mean(axis=(1, 3))
    made = decode(data, shrink)
    assert made.shape == (height, width, 3)
    assert made.dtype == np.uint8
    assert difference(made, squares) < 1.5


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF"])
def test_exif_orientation_is_applied_to_size_and_pixels(picture: Image.Image, format: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = stored(picture, format, exif=exif, **({"quality": 95} if format == "JPEG" else {}))
    size = (75, 101) if orientation >= 5 else (101, 75)
    assert image_size(data) == size
    turn = imaging._TURNS.get(orientation)
    upright = picture if turn is None else picture.transpose(turn)
    assert difference(decode(data), upright) < 1.5
    half = decode(data, 2)
    assert half.shape == (math.ceil(size[1] / 2), math.ceil(size[0] / 2), 3)
    assert difference(half, upright.resize((half.shape[1], half.shape[0]), Image.Resampling.BOX)) < 3


def test_every_mode_becomes_rgb(picture: Image.Image) -> None:
    grey = picture.convert("L")
    assert difference(decode(stored(grey, quality=95))[..., 1], grey) < 1
    assert difference(decode(stored(grey, quality=95), 2)[..., 1], np.asarray(grey)[::2, ::2]) < 3
    assert difference(decode(stored(picture.convert("CMYK"), quality=95)), picture) < 3
    assert decode(stored(picture.convert("CMYK")), 4).shape == (19, 26, 3)
    palette = picture.convert("P")
    np.testing.assert_array_equal(decode(stored(palette, "PNG")), palette.convert("RGB"))
    deep = Image.fromarray((np.arange(0, 65536, 256, dtype=np.uint16) + 77).reshape(16, 16))
    np.testing.assert_array_equal(decode(stored(deep, "PNG"))[..., 2], np.arange(256).reshape(16, 16))
    film = stored(picture.convert("P"), "GIF", save_all=True, append_images=[Image.new("P", picture.size)])
    assert difference(decode(film), picture.convert("P").convert("RGB")) < 1


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (3, 3), (5, 5), (7, 9), (17, 8)])
@pytest.mark.parametrize("format", ["JPEG", "PNG"])
@pytest.mark.parametrize("mode", ["RGB", "CMYK"])
def test_the_smallest_images_keep_the_rule_of_sizes(size: tuple[int, int], format: str, mode: str) -> None:
    image = Image.new(mode if format == "JPEG" else "RGB", size)
    for shrink in (1, 2, 4, 8):
        made = decode(stored(image, format), shrink)
        assert made.shape == (math.ceil(size[1] / shrink), math.ceil(size[0] / shrink), 3)


def test_stray_bytes_in_a_jpeg_are_no_damage(picture: Image.Image) -> None:
    data = stored(picture, quality=95)
    np.testing.assert_array_equal(decode(data[:-2] + b"\0\0stray" + data[-2:]), decode(data))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
@pytest.mark.parametrize("shrink", [1, 4])
def test_an_image_cut_short_is_damaged_whatever_its_format(picture: Image.Image, format: str, shrink: int) -> None:
    data = stored(picture, format)
    with pytest.raises(DamagedSample, match=r"^its (image|bytes)"):
        decode(data[: len(data) * 2 // 3], shrink)


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xd8", b"\xff\xd8\xff\xe0", b"not an image" * 20, b"\x89PNG\r\n\x1a\n" * 9]
)
def test_what_is_no_image_is_damaged_and_not_quoted(data: bytes) -> None:
    for ask in (image_size, decode):
        with pytest.raises(DamagedSample) as raised:
            ask(data)
        assert str(raised.value) in (
            "its bytes are no image of a known format",
            "its image does not decode",
            "its image is cut short",
        )


def test_a_header_that_promises_too_many_pixels_is_refused_before_decoding(picture: Image.Image) -> None:
    data = bytearray(stored(picture))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = (60000).to_bytes(2, "big") * 2
    for ask in (image_size, decode):
        with pytest.raises(DamagedSample, match="60000 x 60000 pixels"):
            ask(bytes(data))


def test_headers_are_told_apart_by_image_not_by_what_was_asked_before(picture: Image.Image) -> None:
    one, other = stored(picture), stored(picture.resize((40, 30)))
    assert [image_size(x) for x in (one, other, one)] == [(101, 75), (40, 30), (101, 75)]
    assert decode(other).shape == (30, 40, 3)
