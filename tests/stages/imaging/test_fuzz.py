"""Mutated images of all formats: none crashes a reader or is lost without a reason, and all readers agree on each."""

from __future__ import annotations

import io
import random
from collections import Counter
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stages.download.image import Inspector
from stages.download.outcome import Failure, Reason
from stages.imaging.decode import TooManyPixels, UndecodableImage
from stages.imaging.decode import image_size as header_size
from stages.imaging.formats import FORMATS
from stages.signals.measure import _decoded
from stages.train.data.dataset import DamagedSample
from stages.train.data.decode import decode, image_size

MUTANTS = 60  # of each picture
LIMIT = 1_000_000  # pixels
REASONS = {Reason.NOT_AN_IMAGE, Reason.UNSUPPORTED_FORMAT, Reason.TRUNCATED, Reason.CORRUPT, Reason.TOO_SMALL}

y, x = np.mgrid[0:45, 0:60]
RGB = Image.fromarray(np.stack([x * 4, y * 5, x + y], axis=-1).astype(np.uint8))
EXIF = Image.Exif()
EXIF[0x0112] = 6


def saved(image: Image.Image, form: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def rgba() -> Image.Image:
    image = RGB.copy()
    image.putalpha(Image.fromarray((x * 4).astype(np.uint8)))
    return image


ANIMATED: dict[str, Any] = {"save_all": True, "append_images": [RGB.rotate(90), RGB.rotate(180)]}
LABELLED: dict[str, Any] = {"exif": EXIF, "icc_profile": b"a profile" * 20, "xmp": b"<x:xmpmeta/>"}
PICTURES = {
    "baseline.jpg": saved(RGB, "JPEG"),
    "progressive.jpg": saved(RGB, "JPEG", progressive=True),
    "grey.jpg": saved(RGB.convert("L"), "JPEG"),
    "cmyk.jpg": saved(RGB.convert("CMYK"), "JPEG"),
    "labelled.jpg": saved(RGB, "JPEG", comment=b"a comment", **LABELLED),
    "two.mpo": saved(RGB, "MPO", **ANIMATED),
    "rgb.png": saved(RGB, "PNG"),
    "rgba.png": saved(rgba(), "PNG"),
    "grey-alpha.png": saved(rgba().convert("LA"), "PNG"),
    "palette.png": saved(RGB.convert("P"), "PNG", transparency=bytes(range(200))),
    "grey-colour.png": saved(RGB.convert("L"), "PNG", transparency=40),
    "deep.png": saved(Image.fromarray((x * 900).astype(np.uint16)), "PNG", transparency=900),
    "labelled.png": saved(RGB, "PNG", exif=EXIF, icc_profile=b"a profile" * 20),
    "animated.png": saved(RGB, "PNG", **ANIMATED),
    "lossy.webp": saved(RGB, "WEBP"),
    "lossless.webp": saved(rgba(), "WEBP", lossless=True),
    "labelled.webp": saved(rgba(), "WEBP", **LABELLED),
    "animated.webp": saved(RGB, "WEBP", **ANIMATED),
    "one.gif": saved(RGB, "GIF", transparency=3, comment=b"a comment"),
    "animated.gif": saved(RGB, "GIF", **ANIMATED),
    "rgb.bmp": saved(RGB, "BMP"),
    "palette.bmp": saved(RGB.convert("P"), "BMP"),
    "raw.tif": saved(rgba(), "TIFF", exif=EXIF),
    "deflated.tif": saved(RGB, "TIFF", compression="tiff_adobe_deflate"),
    "lzw.tif": saved(RGB.convert("P"), "TIFF", compression="tiff_lzw"),
    "jpeg.tif": saved(RGB, "TIFF", compression="jpeg"),
    "rgb.avif": saved(RGB, "AVIF", exif=EXIF),
    "rgba.avif": saved(rgba(), "AVIF"),
    "rgb.jp2": saved(RGB, "JPEG2000"),
    "rgba.jp2": saved(rgba(), "JPEG2000"),
    "png.ico": saved(rgba(), "ICO", sizes=[(45, 45), (16, 16)]),
    "bitmap.ico": saved(rgba(), "ICO", sizes=[(45, 45), (16, 16)], bitmap_format="bmp"),
    "rgb.ppm": saved(RGB, "PPM"),
    "grey.pgm": saved(RGB.convert("L"), "PPM"),
}


def mutated(data: bytes, draw: random.Random) -> bytes:
    """The file with one to three of its parts flipped, overwritten, cut out, doubled, inserted, or with its end cut."""
    for _ in range(draw.randint(1, 3)):
        # Half of the mutations concern the head, where the structure is.
        at = draw.randrange(len(data) if draw.random() < 0.5 else min(len(data), 200)) if data else 0
        length = draw.choice((1, 2, 4, 20))
        part = data[at : at + length]
        match draw.randrange(7):
            case 0:
                data = data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :] if data else data
            case 1:
                data = data[:at] + draw.randbytes(length) + data[at + length :]
            case 2:
                data = data[:at] + data[at + length :]
            case 3:
                data = data[:at] + part * 2 + data[at + length :]
            case 4:
                data = data[:at] + draw.choice((b"\0", b"\xff")) * length + data[at + length :]
            case 5:
                data = data[:at] + draw.randbytes(length) + data[at:]
            case _:
                data = data[: max(at, len(data) // 2)]
    return data


def check(data: bytes) -> str:
    """Outcome of the download, after the comparison with what signals and training make of the same bytes."""
    inspect = Inspector(tuple(FORMATS), 1, LIMIT, 95, 2)
    try:
        found, outcome = inspect(data), "success"
    except Failure as failure:
        found, outcome = None, failure.status
    try:
        header_size(data, LIMIT)
    except TooManyPixels:
        assert outcome in (Reason.TOO_MANY_PIXELS, Reason.TRUNCATED)
        return outcome
    except UndecodableImage:
        pass
    if outcome == Reason.TOO_MANY_PIXELS:
        return outcome
    assert outcome == "success" or outcome in REASONS
    rgb = _decoded(data)
    try:
        trained = decode(data)
    except DamagedSample:
        trained = None
    assert (rgb is not None) == (trained is not None) == (found is not None)
    if found is None or rgb is None or trained is None:
        return outcome
    assert rgb.size == (found.width, found.height) == image_size(data) == trained.shape[1::-1]
    decode(data, 4)
    stored = _decoded(found.data)
    assert stored is not None
    assert stored.size == rgb.size
    if found.orientation == 1:
        np.testing.assert_array_equal(np.asarray(stored), np.asarray(rgb))
    assert inspect(found.data).data == found.data  # whole, upright and readable now
    return outcome


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", PICTURES)
def test_all_readers_agree_on_a_mutated_picture(name: str) -> None:
    assert check(PICTURES[name]) == "success"
    draw = random.Random(name)
    outcomes = Counter(check(mutated(PICTURES[name], draw)) for _ in range(MUTANTS))
    assert outcomes.total() == MUTANTS
    assert outcomes["success"] < MUTANTS  # they were mutated
