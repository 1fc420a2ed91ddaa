"""WebP, GIF, BMP and TIFF with hostile contents, and everything else that is sent for a picture and is none."""

from __future__ import annotations

import gzip
import io
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

ALL = ("jpeg", "png", "webp", "gif", "bmp", "tiff")


def saved(image: Image.Image, form: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


RGB = Image.fromarray(np.random.default_rng(3).integers(0, 255, (30, 40, 3), dtype=np.uint8))
OTHERS = [RGB.rotate(90), RGB.rotate(180)]
TURNED = Image.Exif()
TURNED[0x0112] = 6
WEBP, GIF, BMP, TIFF = (saved(RGB, form) for form in ("WEBP", "GIF", "BMP", "TIFF"))
MOVING_WEBP = saved(RGB, "WEBP", save_all=True, append_images=OTHERS, duration=5)
MOVING_GIF = saved(RGB, "GIF", save_all=True, append_images=OTHERS, duration=5)


def tiff(*tags: tuple[int, int, int, int], data: bytes = bytes(400)) -> bytes:
    """A little-endian TIFF whose only directory holds (tag, type, count, value); picture data start at byte 8."""
    entries = b"".join(struct.pack("<HHII", *tag) for tag in sorted(tags))
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(tags)) + entries + bytes(4)


def grey(width: int = 20, height: int = 20, *more: tuple[int, int, int, int]) -> tuple[tuple[int, int, int, int], ...]:
    own = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: 400}
    replaced = {tag[0] for tag in more}
    return (*((tag, 4, 1, value) for tag, value in own.items() if tag not in replaced), *more)


def bmp(width: int, height: int, bits: int = 24, compression: int = 0, start: int = 54) -> bytes:
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + 400, 0, 0, start) + info + bytes(400)


def riff(*chunks: tuple[bytes, bytes]) -> bytes:
    body = b"".join(kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2) for kind, data in chunks)
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def wide_webp(side: int) -> bytes:
    """Only a header (VP8X) that promises side x side pixels."""
    return riff((b"VP8X", b"\0\0\0\0" + (side - 1).to_bytes(3, "little") * 2), (b"VP8 ", bytes(50)))


def first_screen(data: bytes, width: int, height: int) -> bytes:
    """Another size in the GIF's logical screen."""
    return data[:6] + struct.pack("<HH", width, height) + data[10:]


CASES: dict[str, tuple[bytes, str]] = {
    "plain.webp": (WEBP, "success"),
    "lossless.webp": (saved(RGB, "WEBP", lossless=True), "success"),
    "alpha.webp": (saved(RGB.convert("RGBA"), "WEBP"), "success"),
    "animated.webp": (MOVING_WEBP, "success"),
    "turned.webp": (saved(RGB, "WEBP", exif=TURNED), "success"),
    "animated-turned.webp": (saved(RGB, "WEBP", save_all=True, append_images=OTHERS, exif=TURNED), "success"),
    "exif-garbage.webp": (saved(RGB, "WEBP", exif=b"Exif\0\0" + b"\x93" * 40), "success"),
    "xmp-garbage.webp": (saved(RGB, "WEBP", xmp=b"\xff\xfe\0" * 40), "success"),
    "profile-broken.webp": (saved(RGB, "WEBP", icc_profile=b"none" * 9), "success"),
    "with-html-behind.webp": (WEBP + b"<html>" * 9, "success"),
    "animated-cut.webp": (MOVING_WEBP[:-200], "truncated"),
    "length-lies.webp": (WEBP[:4] + b"\xff\xff\xff\x7f" + WEBP[8:], "success"),
    "empty-riff.webp": (riff(), "corrupt"),
    "wide.webp": (wide_webp(16_384), "too_many_pixels"),
    "header-only.webp": (wide_webp(50), "corrupt"),
    "sound.webp": (b"RIFF" + struct.pack("<I", 100) + b"WAVE" + bytes(96), "not_an_image"),
    "plain.gif": (GIF, "success"),
    "animated.gif": (MOVING_GIF, "success"),
    "script.gif": (b"GIF89a/*" + GIF[8:] + b"*/=1;alert(1)//", "success"),
    "script-only.gif": (b"GIF89a=1;alert(document.cookie);" + b" " * 60, "truncated"),
    "cut.gif": (GIF[: len(GIF) // 2], "truncated"),
    "animated-cut-in-second.gif": (MOVING_GIF[: len(MOVING_GIF) // 2], "success"),
    "no-frames.gif": (GIF[:13] + b";" * 60, "corrupt"),
    "wide-screen.gif": (first_screen(GIF, 65_535, 65_535), "too_many_pixels"),
    "no-screen.gif": (first_screen(GIF, 0, 0), "success"),
    "plain.bmp": (BMP, "success"),
    "1-bit.bmp": (saved(RGB.convert("1"), "BMP"), "success"),
    "palette.bmp": (saved(RGB.convert("P"), "BMP"), "success"),
    "cut.bmp": (BMP[: len(BMP) // 2], "truncated"),
    "wide.bmp": (bmp(2**31 - 1, 2**31 - 1), "too_many_pixels"),
    "upside-down.bmp": (bmp(10, -10), "success"),
    "negative-width.bmp": (bmp(-10, 10), "too_many_pixels"),
    "no-width.bmp": (bmp(0, 0), "corrupt"),
    "lowest-height.bmp": (bmp(10, -(2**31)), "too_many_pixels"),
    "bits-7.bmp": (bmp(10, 10, 7), "corrupt"),
    "rle-garbage.bmp": (bmp(10, 10, 8, 1), "corrupt"),
    "jpeg-inside.bmp": (bmp(10, 10, 24, 4), "corrupt"),
    "data-beyond-end.bmp": (bmp(10, 10, start=2**31), "truncated"),
    "words.bmp": (b"BM is how this sentence begins, and nothing of it is a bitmap. " * 3, "not_an_image"),
    "plain.tif": (TIFF, "success"),
    "deflated.tif": (saved(RGB, "TIFF", compression="tiff_adobe_deflate"), "success"),
    "float.tif": (saved(Image.fromarray(np.linspace(0, 1, 1200, dtype=np.float32).reshape(30, 40)), "TIFF"), "success"),
    "cmyk.tif": (saved(RGB.convert("CMYK"), "TIFF"), "success"),
    "pages.tif": (saved(RGB, "TIFF", save_all=True, append_images=OTHERS), "success"),
    "turned.tif": (saved(RGB, "TIFF", exif=TURNED), "success"),
    "cut.tif": (TIFF[: len(TIFF) // 2], "truncated"),
    "grey-by-hand.tif": (tiff(*grey()), "success"),
    "wide.tif": (tiff(*grey(60_000, 60_000)), "too_many_pixels"),
    "no-width.tif": (tiff(*grey(0, 0)), "corrupt"),
    "strip-beyond-end.tif": (tiff(*grey(20, 20, (273, 4, 1, 2**31 - 1))), "truncated"),
    "strips-uncounted.tif": (tiff(*grey(20, 20, (273, 4, 2**31 - 1, 8))), "corrupt"),
    "bits-77.tif": (tiff(*grey(20, 20, (258, 4, 1, 77))), "corrupt"),
    "compression-unknown.tif": (tiff(*grey(20, 20, (259, 4, 1, 60_000))), "corrupt"),
    "fax-garbage.tif": (tiff(*grey(20, 20, (258, 4, 1, 1), (259, 4, 1, 4))), "corrupt"),
    "no-tags.tif": (tiff(), "corrupt"),
    "directory-is-itself.tif": (b"II*\0\x08\0\0\0\0\0\x08\0\0\0" + bytes(90), "corrupt"),
    "directory-beyond-end.tif": (b"II*\0\xff\xff\xff\x7f" + bytes(90), "corrupt"),
    "big.tif": (b"II+\0\x08\0\0\0" + bytes(90), "corrupt"),
    "empty": (b"", "too_small"),
    "one-byte": (b"\xff", "not_an_image"),
    "three-bytes": (b"\xff\xd8\xff", "truncated"),
    "page.html": (b"<!doctype html><title>Not found</title>" * 4, "not_an_image"),
    "error.json": (b'{"error": "gone", "pad": "' + b"x" * 99 + b'"}', "not_an_image"),
    "vector.svg": (
        b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>' * 2,
        "unsupported_format",
    ),
    "entities.svg": (
        b'<?xml version="1.0"?><!DOCTYPE s [<!ENTITY a "aaaa">]><svg>&a;&a;</svg>' * 2,
        "unsupported_format",
    ),
    "icon.ico": (saved(RGB.resize((16, 16)), "ICO"), "unsupported_format"),
    "cursor.cur": (b"\0\0\2\0\1\0" + bytes(90), "not_an_image"),
    "photo.heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(90), "unsupported_format"),
    "photo.avif": (saved(RGB, "AVIF"), "unsupported_format"),
    "photo.jp2": (saved(RGB, "JPEG2000"), "unsupported_format"),
    "photo.jxl": (b"\xff\x0a" + bytes(90), "unsupported_format"),
    "film.mp4": (b"\0\0\0\x20ftypisom" + bytes(90), "not_an_image"),
    "layers.psd": (b"8BPS\0\1" + bytes(90), "unsupported_format"),
    "vector.eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n" * 3, "not_an_image"),
    "text.ppm": (b"P6 20 20 255 " + bytes(1200), "unsupported_format"),
    "script.php": (b"<?php system($_GET[0]); ?>" * 4, "not_an_image"),
    "program.exe": (b"MZ" + bytes(90), "not_an_image"),
    "program": (b"\x7fELF" + bytes(90), "not_an_image"),
    "archive.zip": (b"PK\3\4" + bytes(90), "not_an_image"),
    "packed.jpg": (gzip.compress(saved(RGB, "JPEG")), "not_an_image"),
    "utf16.html": (("<html>" * 20).encode("utf-16"), "not_an_image"),
    "zeros": (bytes(5000), "not_an_image"),
}


def test_each_hostile_file_of_other_formats_ends_with_its_status_and_what_is_stored_decodes(
    fetched: Callable[..., Any],
) -> None:
    rows = fetched({name: data for name, (data, _) in CASES.items()}, keep_formats=ALL)

    assert {name: row["status"] for name, row in rows.items()} == {name: status for name, (_, status) in CASES.items()}
    for name in ("turned.webp", "animated-turned.webp", "turned.tif"):
        assert (rows[name]["width"], rows[name]["height"], rows[name]["exif_orientation"]) == (30, 40, 6), name


@pytest.mark.parametrize("moving", [MOVING_WEBP, MOVING_GIF])
def test_an_animation_counts_as_its_first_frame(fetched: Callable[..., Any], moving: bytes) -> None:
    (row,) = fetched({"moving": moving}, keep_formats=ALL).values()
    assert (row["status"], row["width"], row["height"], row["bytes"]) == ("success", 40, 30, len(moving))


def test_by_default_formats_other_than_jpeg_png_and_webp_are_unsupported(fetched: Callable[..., Any]) -> None:
    rows = fetched({"a.gif": GIF, "b.bmp": BMP, "c.tif": TIFF, "script.gif": b"GIF89a/*" + GIF[8:]})
    assert {row["status"] for row in rows.values()} == {"unsupported_format"}


def test_webp_gif_bmp_and_tiff_cut_anywhere_are_never_stored(fetched: Callable[..., Any]) -> None:
    whole = {"webp": WEBP, "gif": GIF, "bmp": BMP, "tif": TIFF}
    cut = {
        f"{at}.{kind}": data[:at] for kind, data in whole.items() for at in range(20, len(data) - 9, len(data) // 17)
    }
    statuses = {name: row["status"] for name, row in fetched(cut, keep_formats=ALL).items()}
    assert {status for name, status in statuses.items() if not name.endswith("tif")} == {"truncated"}, statuses
    assert {status for name, status in statuses.items() if name.endswith("tif")} <= {"truncated", "corrupt"}
