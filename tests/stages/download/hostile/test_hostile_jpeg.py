"""JPEG files from the wild and from the workshop of an enemy: stored and decodable later, or refused for a reason."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

ALL = ("jpeg", "png", "webp", "gif", "bmp", "tiff")


def photo(mode: str = "RGB", size: tuple[int, int] = (90, 60)) -> Image.Image:
    x, y = np.meshgrid(np.linspace(0, 255, size[0]), np.linspace(0, 255, size[1]))
    noise = np.random.default_rng(7).normal(0, 9, (size[1], size[0], 3))
    pixels = np.clip(np.stack([x, y, 255 - x], axis=-1) + noise, 0, 255).astype(np.uint8)
    return Image.fromarray(pixels).convert(mode)


def jpeg(image: Image.Image | None = None, form: str = "JPEG", **options: Any) -> bytes:
    out = io.BytesIO()
    (image or photo()).save(out, form, **options)
    return out.getvalue()


def segment(marker: int, data: bytes, length: int | None = None) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2 if length is None else length) + data


def insert(data: bytes, *segments: bytes) -> bytes:
    """Segments right behind the start of image."""
    return data[:2] + b"".join(segments) + data[2:]


def exif(orientation: object, kind: int = 3) -> bytes:
    """An APP1 block with one tag, little-endian; `kind` 3 is SHORT, 2 ASCII, 4 LONG."""
    value = orientation if isinstance(orientation, bytes) else struct.pack("<I", orientation)
    return b"Exif\0\0II*\0" + struct.pack("<IHHHI4sI", 8, 1, 0x0112, kind, 1, value, 0)


def frame(data: bytes, height: int, width: int) -> bytes:
    """Another size in the frame header (SOF0)."""
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


def zipped() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("payload.js", "alert(1)")
    return out.getvalue()


PLAIN = jpeg()
WHOLE_SCAN = PLAIN.index(b"\xff\xda")
PROGRESSIVE = jpeg(progressive=True)
LAST_SCAN = PROGRESSIVE[PROGRESSIVE.rindex(b"\xff\xda") : -2]
XMP = b'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'

CASES: dict[str, tuple[bytes, str]] = {
    "baseline.jpg": (PLAIN, "success"),
    "progressive.jpg": (PROGRESSIVE, "success"),
    "no-subsampling.jpg": (jpeg(subsampling=0), "success"),
    "grey.jpg": (jpeg(photo("L")), "success"),
    "one-pixel.jpg": (jpeg(photo(size=(1, 1))), "success"),
    "needle.jpg": (jpeg(photo(size=(3000, 1))), "success"),
    "cmyk-adobe-inverted.jpg": (jpeg(photo("CMYK")), "success"),
    "cmyk-not-inverted.jpg": (jpeg(photo("CMYK")).replace(b"Adobe", b"adobE"), "success"),
    "cmyk-turned.jpg": (insert(jpeg(photo("CMYK")), segment(0xE1, exif(6))), "success"),
    "ycck.jpg": (jpeg(photo("CMYK")).replace(b"Adobe\0d\0\0\0\0\0", b"Adobe\0d\0\0\0\0\2"), "success"),
    "no-colour-transform.jpg": (insert(PLAIN, segment(0xEE, b"Adobe\0d\0\0\0\0\0")), "success"),
    "restart-markers.jpg": (jpeg(restart_marker_blocks=1), "success"),
    "wrong-extension.png": (PLAIN, "success"),
    "no-extension": (PLAIN, "success"),
    "pictures-two-in-one.jpg": (jpeg(form="MPO", save_all=True, append_images=[photo("L")]), "success"),
    "pictures-two-but-cut.jpg": (jpeg(form="MPO", save_all=True, append_images=[photo()])[:-900], "success"),
    "comment-script.jpg": (insert(PLAIN, segment(0xFE, b"<script>alert(1)</script><?php ?>")), "success"),
    "with-zip.jpg": (PLAIN + zipped(), "success"),
    "with-html.jpg": (PLAIN + b"<html>" * 500, "success"),
    "with-many-scan-markers-behind.jpg": (PLAIN + b"\xff\xda\0" * 5000, "success"),
    "with-zeros.jpg": (PLAIN + bytes(5000), "success"),
    "zip-first.jpg": (zipped() + PLAIN, "not_an_image"),
    "pdf-first.jpg": (b"%PDF-1.7\n" + PLAIN, "not_an_image"),
    "byte-first.jpg": (b"\n" + PLAIN, "not_an_image"),
    "without-end.jpg": (PLAIN[:-2], "success"),
    "cut-in-scan.jpg": (PLAIN[: (WHOLE_SCAN + len(PLAIN)) // 2], "truncated"),
    "cut-at-scan.jpg": (PLAIN[:WHOLE_SCAN], "truncated"),
    "cut-in-tables.jpg": (PLAIN[: WHOLE_SCAN // 2], "truncated"),
    "cut-in-app0.jpg": (PLAIN[:12], "truncated"),
    "cut-at-start.jpg": (PLAIN[:4], "truncated"),
    "start-and-end-only.jpg": (b"\xff\xd8\xff\xd9" * 40, "corrupt"),
    "no-scan.jpg": (PLAIN[:WHOLE_SCAN] + b"\xff\xd9", "corrupt"),
    "no-quantization.jpg": (PLAIN.replace(b"\xff\xdb", b"\xff\xe5"), "corrupt"),
    "no-huffman.jpg": (PLAIN.replace(b"\xff\xc4", b"\xff\xe5"), "success"),
    "no-frame.jpg": (PLAIN.replace(b"\xff\xc0", b"\xff\xe5"), "corrupt"),
    "zero-width.jpg": (frame(PLAIN, 60, 0), "corrupt"),
    "zero-height.jpg": (frame(PLAIN, 0, 90), "corrupt"),
    "twelve-bits.jpg": (PLAIN.replace(b"\xff\xc0\0\x11\x08", b"\xff\xc0\0\x11\x0c"), "corrupt"),
    "arithmetic.jpg": (PLAIN.replace(b"\xff\xc0", b"\xff\xc9"), "success"),
    "lossless.jpg": (PLAIN.replace(b"\xff\xc0", b"\xff\xc3"), "corrupt"),
    "five-components.jpg": (
        PLAIN.replace(b"\xff\xc0\0\x11\x08\0\x3c\0\x5a\3", b"\xff\xc0\0\x11\x08\0\x3c\0\x5a\5"),
        "corrupt",
    ),
    "huge-header.jpg": (frame(PLAIN, 65_535, 65_535), "too_many_pixels"),
    "thousand-scans.jpg": (PROGRESSIVE[:-2] + LAST_SCAN * 1000 + PROGRESSIVE[-2:], "corrupt"),
    "segment-beyond-end.jpg": (insert(PLAIN[:400], segment(0xE2, b"x", 65_535)), "truncated"),
    "segment-of-length-0.jpg": (insert(PLAIN, segment(0xE2, b"", 0)), "success"),
    "icc-broken.jpg": (jpeg(icc_profile=b"no profile at all" * 20), "success"),
    "icc-broken-turned.jpg": (insert(jpeg(icc_profile=b"no profile" * 20), segment(0xE1, exif(3))), "success"),
    "icc-too-big-turned.jpg": (insert(jpeg(icc_profile=bytes(300_000)), segment(0xE1, exif(3))), "success"),
    "icc-parts-missing.jpg": (insert(PLAIN, segment(0xE2, b"ICC_PROFILE\0\2\3" + bytes(50))), "success"),
    **{f"exif-{n}.jpg": (insert(PLAIN, segment(0xE1, exif(n))), "success") for n in range(10)},
    "exif-as-text.jpg": (insert(PLAIN, segment(0xE1, exif(b"6\0\0\0", 2))), "success"),
    "exif-as-long.jpg": (insert(PLAIN, segment(0xE1, exif(6, 4))), "success"),
    "exif-huge-number.jpg": (insert(PLAIN, segment(0xE1, exif(b"\xff" * 4, 4))), "success"),
    "exif-empty.jpg": (insert(PLAIN, segment(0xE1, b"Exif\0\0")), "success"),
    "exif-garbage.jpg": (insert(PLAIN, segment(0xE1, b"Exif\0\0" + b"\x93garbage" * 30)), "success"),
    "exif-cut.jpg": (insert(PLAIN, segment(0xE1, exif(6)[:20])), "success"),
    "exif-loop.jpg": (insert(PLAIN, segment(0xE1, exif(1)[:-4] + struct.pack("<I", 8))), "success"),
    "exif-many-tags.jpg": (insert(PLAIN, segment(0xE1, b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + bytes(900))), "success"),
    "exif-offset-beyond.jpg": (insert(PLAIN, segment(0xE1, b"Exif\0\0II*\0\xff\xff\xff\x7f")), "success"),
    "exif-twice.jpg": (insert(PLAIN, segment(0xE1, exif(6)), segment(0xE1, exif(8))), "success"),
    "xmp-orientation.jpg": (insert(PLAIN, segment(0xE1, XMP)), "success"),
    "xmp-not-utf8.jpg": (insert(PLAIN, segment(0xE1, XMP[:40] + b"\xff\xfe\0" * 90)), "success"),
    "photoshop-broken.jpg": (insert(PLAIN, segment(0xED, b"Photoshop 3.0\x008BIM\xff\xff\xff\xff\xff")), "success"),
}
TURNED = {f"exif-{n}.jpg": n for n in range(1, 9)} | {"cmyk-turned.jpg": 6, "exif-as-long.jpg": 6}


def test_each_hostile_jpeg_ends_with_its_status_and_what_is_stored_decodes(fetched: Callable[..., Any]) -> None:
    rows = fetched({name: data for name, (data, _) in CASES.items()}, keep_formats=ALL, max_bytes=2_000_000)

    assert {name: row["status"] for name, row in rows.items()} == {name: status for name, (_, status) in CASES.items()}
    assert {row["format"] for row in rows.values() if row["status"] == "success"} == {"jpeg"}
    for name, orientation in TURNED.items():
        assert rows[name]["exif_orientation"] == orientation, name
        size = (60, 90) if orientation >= 5 else (90, 60)
        assert (rows[name]["width"], rows[name]["height"]) == size, name


def test_a_jpeg_cut_anywhere_is_truncated_or_lacks_nothing_but_its_end_marker(fetched: Callable[..., Any]) -> None:
    cut = {
        f"{kind}-{at}.jpg": data[:at]
        for kind, data in {"baseline": PLAIN, "progressive": PROGRESSIVE}.items()
        for at in range(4, len(data) - 2, max(1, len(data) // 23))
    }
    rows = fetched(cut)
    assert {row["status"] for row in rows.values()} == {"truncated"}, rows
