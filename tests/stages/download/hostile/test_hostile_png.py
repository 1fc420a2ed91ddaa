"""PNG files that lie about their size, explode when inflated, or hold metadata that trip a careless reader."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

START = b"\x89PNG\r\n\x1a\n"


def chunk(kind: bytes, data: bytes, checksum: int | None = None) -> bytes:
    tail = zlib.crc32(kind + data) if checksum is None else checksum
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", tail)


def header(width: int, height: int, bits: int = 8, colour: int = 2, interlace: int = 0, method: int = 0) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, method, 0, interlace))


def rows(width: int, height: int, bytes_per_row: int) -> bytes:
    return zlib.compress(b"".join(b"\0" + bytes([(y * 5) % 256]) * bytes_per_row for y in range(height)))


def made(*chunks: bytes) -> bytes:
    return START + b"".join(chunks) + chunk(b"IEND", b"")


def around(extra: bytes, colour: int = 2, bits: int = 8, after: bool = False, channels: int = 3) -> bytes:
    """A whole picture of 40 x 30 pixels with chunks before (or after) its data."""
    data = chunk(b"IDAT", rows(40, 30, 40 * channels * bits // 8))
    return made(header(40, 30, bits, colour), *([data, extra] if after else [extra, data]))


def bomb(kind: bytes, before: bytes, megabytes: int = 200) -> bytes:
    """A chunk of some hundred kilobytes that inflates to far more."""
    pack = zlib.compressobj(9)
    inside = b"".join(pack.compress(bytes(1 << 20)) for _ in range(megabytes)) + pack.flush()
    return chunk(kind, before + inside)


def png(image: Image.Image, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG", **options)
    return out.getvalue()


def text(key: bytes, value: bytes = b"hello") -> bytes:
    return chunk(b"tEXt", key + b"\0" + value)


RGB = Image.fromarray(np.random.default_rng(3).integers(0, 255, (30, 40, 3), dtype=np.uint8))
DEEP = Image.fromarray(np.arange(1200, dtype=np.uint16).reshape(30, 40) * 50)
PLAIN = png(RGB)
PALETTE = chunk(b"PLTE", bytes(range(48)) * 16)
INDEXED = chunk(b"IDAT", rows(40, 30, 40))
FCTL = chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 40, 30, 0, 0, 1, 10, 0, 0))
TURNED = Image.Exif()
TURNED[0x0112] = 6
RAW_EXIF = b"\nexif\n      8\n" + TURNED.tobytes().removeprefix(b"Exif\0\0").hex().encode()
XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
ITXT = b"XML:com.adobe.xmp\0\0\0\0\0"

CASES: dict[str, tuple[bytes, str]] = {
    "rgb.png": (PLAIN, "success"),
    "1-bit.png": (png(RGB.convert("1")), "success"),
    "grey.png": (png(RGB.convert("L")), "success"),
    "grey-alpha.png": (png(RGB.convert("LA")), "success"),
    "rgba.png": (png(RGB.convert("RGBA")), "success"),
    "palette.png": (png(RGB.convert("P")), "success"),
    "palette-alpha.png": (png(RGB.convert("P"), transparency=bytes(range(200))), "success"),
    "palette-one-transparent.png": (png(RGB.convert("P"), transparency=3), "success"),
    "palette-2-bits.png": (png(RGB.quantize(4), bits=2), "success"),
    "grey-one-transparent.png": (png(RGB.convert("L"), transparency=9), "success"),
    "16-bit-grey.png": (png(DEEP), "success"),
    "16-bit-rgb.png": (around(b"", bits=16), "success"),
    "16-bit-rgba.png": (around(b"", colour=6, bits=16, channels=4), "success"),
    "16-bit-grey-alpha.png": (around(b"", colour=4, bits=16, channels=2), "success"),
    "interlaced.png": (made(header(1, 1, interlace=1), chunk(b"IDAT", zlib.compress(b"\0abc"))), "success"),
    "interlaced-larger.png": (made(header(9, 7, interlace=1), chunk(b"IDAT", zlib.compress(bytes(203)))), "success"),
    "interlaced-less.png": (made(header(9, 7, interlace=1), chunk(b"IDAT", zlib.compress(bytes(202)))), "truncated"),
    "data-in-many-chunks.png": (
        made(header(40, 30), *(chunk(b"IDAT", b"%c" % byte) for byte in rows(40, 30, 120))),
        "success",
    ),
    "one-pixel.png": (png(RGB.crop((0, 0, 1, 1))), "success"),
    "wrong-extension.jpg": (PLAIN, "success"),
    "animated.png": (png(RGB, save_all=True, append_images=[RGB.rotate(90), RGB.rotate(9)]), "success"),
    "animated-but-no-frames.png": (around(chunk(b"acTL", struct.pack(">II", 0, 0))), "success"),
    "animated-lies.png": (around(chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0)) + FCTL), "success"),
    "animated-frame-outside.png": (around(FCTL.replace(struct.pack(">I", 40), struct.pack(">I", 9000))), "success"),
    "with-html-behind.png": (PLAIN + b"<script>" * 5, "success"),
    "with-megabyte-behind.png": (PLAIN + bytes(1_000_000), "success"),
    "50000x50000.png": (made(header(50_000, 50_000), chunk(b"IDAT", rows(64, 2, 192))), "too_many_pixels"),
    "two-thousand-million-wide.png": (made(header(2**31 - 1, 2**31 - 1), chunk(b"IDAT", b"x")), "too_many_pixels"),
    "10000x10000.png": (made(header(10_000, 10_000), chunk(b"IDAT", rows(64, 2, 192))), "too_many_pixels"),
    "zero-width.png": (made(header(0, 30), chunk(b"IDAT", rows(1, 1, 3))), "corrupt"),
    "zero-size.png": (made(header(0, 0), chunk(b"IDAT", rows(1, 1, 3))), "corrupt"),
    "taller-than-its-data.png": (made(header(40, 300), chunk(b"IDAT", rows(40, 30, 120))), "truncated"),
    "data-bomb.png": (made(header(40, 30), bomb(b"IDAT", b"", 50)), "success"),
    "text-bomb.png": (around(bomb(b"zTXt", b"Comment\0\0")), "success"),
    "itxt-bomb.png": (around(bomb(b"iTXt", b"Comment\0\1\0\0\0")), "success"),
    "profile-bomb.png": (around(bomb(b"iCCP", b"icc\0\0")), "success"),
    "text-bomb-behind.png": (around(bomb(b"zTXt", b"Comment\0\0"), after=True), "success"),
    "texts-without-end.png": (around(text(b"k", b"v" * 60_000) * 20), "success"),
    "profile-broken.png": (around(chunk(b"iCCP", b"icc\0\0" + zlib.compress(b"none"))), "success"),
    "profile-not-deflated.png": (around(chunk(b"iCCP", b"icc\0\0nothing")), "success"),
    "profile-empty.png": (around(chunk(b"iCCP", b"")), "success"),
    "profile-other-method.png": (around(chunk(b"iCCP", b"icc\0\7" + zlib.compress(b"x"))), "success"),
    "palette-missing.png": (made(header(40, 30, colour=3), INDEXED), "corrupt"),
    "palette-short.png": (made(header(40, 30, colour=3), chunk(b"PLTE", b"abc"), INDEXED), "success"),
    "palette-of-4-bytes.png": (made(header(40, 30, colour=3), chunk(b"PLTE", b"abcd"), INDEXED), "success"),
    "transparency-too-long.png": (
        made(header(40, 30, colour=3), PALETTE, chunk(b"tRNS", bytes(900)), INDEXED),
        "success",
    ),
    "transparency-cut.png": (around(chunk(b"tRNS", b"\0")), "success"),
    "transparency-empty.png": (around(chunk(b"tRNS", b"")), "success"),
    "colour-type-5.png": (around(b"", colour=5), "corrupt"),
    "bits-3.png": (made(header(40, 30, bits=3), chunk(b"IDAT", b"")), "corrupt"),
    "method-9.png": (made(header(40, 30, method=9), chunk(b"IDAT", rows(40, 30, 120))), "success"),
    "no-header.png": (made(chunk(b"IDAT", rows(40, 30, 120))), "corrupt"),
    "header-short.png": (made(chunk(b"IHDR", b"\0\0"), chunk(b"IDAT", b"")), "truncated"),
    "header-twice.png": (around(header(40, 3000)), "truncated"),
    "no-data.png": (made(header(40, 30)), "corrupt"),
    "no-end.png": (PLAIN[:-12], "success"),
    "signature-only.png": (START * 10, "truncated"),
    "checksum-wrong-header.png": (START + chunk(b"IHDR", header(40, 30)[8:21], 1) + PLAIN[33:], "corrupt"),
    "checksum-wrong-data.png": (made(header(40, 30), chunk(b"IDAT", rows(40, 30, 120), 1)), "success"),
    "checksum-wrong-text.png": (around(chunk(b"tEXt", b"k\0v", 1)), "success"),
    "chunk-beyond-end.png": (START + header(40, 30) + b"\x7f\xff\xff\xffIDATxx", "truncated"),
    "chunk-unknown-critical.png": (around(chunk(b"WHAT", b"?")), "success"),
    "filter-unknown.png": (made(header(4, 1), chunk(b"IDAT", zlib.compress(b"\x09" + bytes(12)))), "corrupt"),
    "deflate-broken.png": (made(header(40, 30), chunk(b"IDAT", b"\x78\x9c" + b"\xff" * 90)), "corrupt"),
    "jpeg-inside.png": (made(header(40, 30), chunk(b"IDAT", b"\xff\xd8\xff\xe0" * 30)), "corrupt"),
    "text-named-xmp.png": (around(text(b"xmp", XMP)), "success"),
    "text-named-exif.png": (around(text(b"exif")), "success"),
    "text-named-transparency.png": (around(text(b"transparency")), "success"),
    "text-named-icc_profile.png": (around(text(b"icc_profile") + chunk(b"eXIf", TURNED.tobytes()[6:])), "success"),
    "text-raw-exif.png": (around(text(b"Raw profile type exif", RAW_EXIF)), "success"),
    "text-raw-exif-broken.png": (around(text(b"Raw profile type exif", b"\n\n\nzz")), "success"),
    "itxt-xmp-turned.png": (around(chunk(b"iTXt", ITXT + XMP)), "success"),
    "exif-turned.png": (png(RGB, exif=TURNED), "success"),
    "exif-turned-palette.png": (png(RGB.convert("P"), exif=TURNED, transparency=3), "success"),
    "exif-turned-16-bit.png": (png(DEEP, exif=TURNED), "success"),
    "exif-garbage.png": (around(chunk(b"eXIf", b"garbage" * 9)), "success"),
    "exif-after-data.png": (around(chunk(b"eXIf", TURNED.tobytes()[6:]), after=True), "success"),
    "apple-cgbi.png": (START + chunk(b"CgBI", b"\x50\0\x20\2") + PLAIN[8:], "success"),
    "mng.png": (b"\x8aMNG\r\n\x1a\n" + bytes(90), "not_an_image"),
    "line-ends-changed.png": (PLAIN.replace(b"\r\n", b"\n"), "not_an_image"),
}
QUARTER = (
    "exif-turned.png",
    "exif-after-data.png",
    "exif-turned-palette.png",
    "exif-turned-16-bit.png",
    "itxt-xmp-turned.png",
)


def test_each_hostile_png_ends_with_its_status_and_what_is_stored_decodes(fetched: Callable[..., Any]) -> None:
    found = fetched({name: data for name, (data, _) in CASES.items()}, max_bytes=2_000_000, max_pixels=50_000_000)

    assert {name: row["status"] for name, row in found.items()} == {name: status for name, (_, status) in CASES.items()}
    for name in QUARTER:
        assert (found[name]["width"], found[name]["height"], found[name]["exif_orientation"]) == (30, 40, 6), name


def test_a_png_cut_anywhere_in_chunks_or_data_is_truncated(fetched: Callable[..., Any]) -> None:
    found = fetched({f"{at}.png": PLAIN[:at] for at in range(8, len(PLAIN) - 20, len(PLAIN) // 29)})
    assert {row["status"] for row in found.values()} == {"truncated"}, found
