"""What is not pixels never costs the pixels: broken, oversized and cut metadata of every format."""

from __future__ import annotations

import io
import random
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from stages.download.image import Inspector
from stages.imaging.decode import decode_rgb
from stages.imaging.formats import FORMATS
from stages.imaging.metadata import without_metadata
from stages.train.data.decode import decode, image_size

RGB = Image.fromarray(np.random.default_rng(3).integers(0, 255, (30, 40, 3), dtype=np.uint8))
NOISE = random.Random(5).randbytes
TURNED = Image.Exif()
TURNED[0x0112] = 6
TURNED[0x010E] = "a description"
inspect = Inspector(tuple(FORMATS), 1, 1_000_000, 95, 2)


def saved(image: Image.Image, form: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def chunk(kind: bytes, data: bytes, checksum: int | None = None) -> bytes:
    tail = zlib.crc32(kind + data) if checksum is None else checksum
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", tail)


PLAIN = {"jpeg": saved(RGB, "JPEG"), "png": saved(RGB, "PNG"), "webp": saved(RGB, "WEBP"), "gif": saved(RGB, "GIF")}
PLAIN["tiff"] = saved(RGB, "TIFF")
EXIF_CHUNK = chunk(b"eXIf", TURNED.tobytes().removeprefix(b"Exif\0\0"))


def in_png(extra: bytes, after: bool = False) -> bytes:
    at = PLAIN["png"].rindex(b"IEND") - 4 if after else 33
    return PLAIN["png"][:at] + extra + PLAIN["png"][at:]


def in_jpeg(*segments: tuple[int, bytes]) -> bytes:
    made = b"".join(struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data for marker, data in segments)
    return PLAIN["jpeg"][:20] + made + PLAIN["jpeg"][20:]


def in_webp(*chunks: tuple[bytes, bytes], cut: int = 0) -> bytes:
    flags = sum({b"ICCP": 0x20, b"EXIF": 0x08, b"XMP ": 0x04}.get(kind, 0) for kind, _ in chunks)
    wide = b"VP8X" + struct.pack("<IB3x", 10, flags) + (39).to_bytes(3, "little") + (29).to_bytes(3, "little")
    picture = PLAIN["webp"][12:]
    packed = [kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2) for kind, data in chunks]
    before = b"".join(p for p in packed if p[:4] == b"ICCP")
    after = b"".join(p for p in packed if p[:4] != b"ICCP")
    body = b"WEBP" + wide + before + picture + after
    whole = b"RIFF" + struct.pack("<I", len(body)) + body
    return whole[: len(whole) - cut]


def in_gif(extension: bytes) -> bytes:
    at = PLAIN["gif"].index(b"\x2c\0\0\0\0")
    return b"GIF89a" + PLAIN["gif"][6:at] + extension + PLAIN["gif"][at:]


def in_tiff(*tags: tuple[int, int, int, int]) -> bytes:
    """With more tags (tag, type, count, value) in a directory of its own at the end."""
    data = PLAIN["tiff"]
    (at,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, at)
    entries = [data[n : n + 12] for n in range(at + 2, at + 2 + 12 * count, 12)]
    entries += [struct.pack("<HHII", *tag) for tag in tags]
    entries.sort(key=lambda entry: struct.unpack("<H", entry[:2]))
    made = struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
    return data[:4] + struct.pack("<I", len(data)) + data[8:] + made


def text_chunk() -> PngInfo:
    info = PngInfo()
    info.add_text("Comment", NOISE(1_000_000).hex() * 3, zip=True)
    return info


PROFILE = NOISE(3_000_000)
#: Name -> bytes, whose picture is that of `PLAIN[format]`, and its orientation.
CASES: dict[str, tuple[str, bytes, int]] = {
    "profile of 3 MB": ("png", saved(RGB, "PNG", icc_profile=PROFILE), 1),
    "profile of 3 MB, turned": ("png", in_png(chunk(b"iCCP", b"p\0\0" + zlib.compress(PROFILE)) + EXIF_CHUNK), 6),
    "text of 6 MB": ("png", saved(RGB, "PNG", pnginfo=text_chunk()), 1),
    "text of 6 MB behind": ("png", in_png(chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(6_000_000))), after=True), 1),
    "international text of 6 MB": ("png", in_png(chunk(b"iTXt", b"k\0\1\0\0\0" + zlib.compress(bytes(6_000_000)))), 1),
    "text with a wrong checksum": ("png", in_png(chunk(b"tEXt", b"k\0v", 1)), 1),
    "text named transparency": ("png", in_png(chunk(b"tEXt", b"transparency\0v")), 1),
    "empty gamma": ("png", in_png(chunk(b"gAMA", b"")), 1),
    "empty profile": ("png", in_png(chunk(b"iCCP", b"")), 1),
    "short resolution": ("png", in_png(chunk(b"pHYs", b"\0")), 1),
    "animation control that lies": ("png", in_png(chunk(b"acTL", b"\0")), 1),
    "EXIF of noise": ("png", in_png(chunk(b"eXIf", NOISE(90))), 1),
    "cut in a text behind": ("png", in_png(chunk(b"tEXt", b"k\0" + b"v" * 99), after=True)[:-50], 1),
    "cut in its checksum": ("png", PLAIN["png"][:-14], 1),
    "bytes behind": ("png", PLAIN["png"] + NOISE(5000), 1),
    "jpeg EXIF of noise": ("jpeg", in_jpeg((0xE1, b"Exif\0\0" + NOISE(90))), 1),
    "jpeg XMP of noise": ("jpeg", in_jpeg((0xE1, b"http://ns.adobe.com/xap/1.0/\0" + NOISE(90))), 1),
    "jpeg profile of noise": ("jpeg", in_jpeg((0xE2, b"ICC_PROFILE\0\1\1" + NOISE(90))), 1),
    "jpeg pictures of noise": ("jpeg", in_jpeg((0xE2, b"MPF\0" + NOISE(90))), 1),
    "jpeg pictures without entries": ("jpeg", in_jpeg((0xE2, b"MPF\0II*\0\x08\0\0\0\0\0\0\0\0\0")), 1),
    "jpeg Photoshop of noise": ("jpeg", in_jpeg((0xED, b"Photoshop 3.0\0" + b"8BIM" + NOISE(60))), 1),
    "jpeg comment": ("jpeg", in_jpeg((0xFE, NOISE(200))), 1),
    **{f"jpeg APP{n} of noise": ("jpeg", in_jpeg((0xE0 + n, NOISE(60))), 1) for n in range(1, 14)},
    "jpeg bytes behind": ("jpeg", PLAIN["jpeg"] + NOISE(5000), 1),
    "webp EXIF of noise": ("webp", in_webp((b"EXIF", NOISE(91))), 1),
    "webp profile and XMP of noise": ("webp", in_webp((b"ICCP", NOISE(91)), (b"XMP ", NOISE(91))), 1),
    "webp cut in its XMP": ("webp", in_webp((b"XMP ", NOISE(91)), cut=40), 1),
    "webp turned, cut in its XMP": ("webp", in_webp((b"EXIF", TURNED.tobytes()), (b"XMP ", NOISE(91)), cut=40), 6),
    "webp with a chunk of its own": ("webp", in_webp((b"none", NOISE(91))), 1),
    "webp bytes behind": ("webp", PLAIN["webp"] + NOISE(500), 1),
    "gif comment of noise": ("gif", in_gif(b"\x21\xfe\xff" + NOISE(255) + b"\0"), 1),
    "gif application without a block": ("gif", in_gif(b"\x21\xff\0"), 1),
    "gif application of noise": ("gif", in_gif(b"\x21\xff\x0bNETSCAPE2.0\0"), 1),
    "gif XMP of noise": ("gif", in_gif(b"\x21\xff\x0bXMP DataXMP\x20" + NOISE(32) + b"\0"), 1),
    "gif bytes behind": ("gif", PLAIN["gif"] + NOISE(500), 1),
    "tiff EXIF beyond the end": ("tiff", in_tiff((34665, 4, 1, 2**31)), 1),
    "tiff EXIF of another type": ("tiff", in_tiff((34665, 2, 4, 0x30303030)), 1),
    "tiff GPS that is the picture": ("tiff", in_tiff((34853, 4, 1, 8)), 1),
    "tiff profile and XMP beyond the end": ("tiff", in_tiff((34675, 7, 999, 2**31), (700, 1, 999, 2**31)), 1),
    "tiff Photoshop beyond the end": ("tiff", in_tiff((34377, 1, 999, 2**31), (33723, 4, 9, 2**31)), 1),
    "tiff bytes behind": ("tiff", PLAIN["tiff"] + NOISE(500), 1),
}


@pytest.mark.parametrize("name", CASES)
def test_metadata_cost_no_pixel_and_no_reader_stumbles_over_what_is_stored(name: str) -> None:
    kind, data, orientation = CASES[name]
    expected = decode_rgb(PLAIN[kind])
    if orientation == 6:
        expected = expected.transpose(Image.Transpose.ROTATE_270)

    np.testing.assert_array_equal(np.asarray(decode_rgb(data)), np.asarray(expected))
    np.testing.assert_array_equal(decode(data), np.asarray(expected))
    assert image_size(data) == expected.size
    found = inspect(data)
    assert (found.width, found.height, found.orientation) == (*expected.size, orientation)
    with Image.open(io.BytesIO(found.data)) as stored:  # as any other reader does
        stored.getexif()
        pixels = np.asarray(stored.convert("RGB"), dtype=float)
    assert np.abs(pixels - np.asarray(expected, dtype=float)).mean() <= (0 if orientation == 1 else 6)


@pytest.mark.parametrize("kind", PLAIN)
def test_a_file_without_metadata_stays_the_very_bytes(kind: str) -> None:
    assert inspect(PLAIN[kind]).data is PLAIN[kind]
    assert decode_rgb(without_metadata(PLAIN[kind], kind)).tobytes() == decode_rgb(PLAIN[kind]).tobytes()


def test_whole_metadata_stay_with_the_picture() -> None:
    data = in_jpeg((0xE2, b"ICC_PROFILE\0\1\1" + bytes(90)), (0xFE, b"by hand"))
    assert inspect(data).data is data


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_taking_metadata_out_takes_all_of_them_out(form: str) -> None:
    exif = Image.Exif()
    exif[0x010E] = "a description"
    options = {"exif": exif} if form == "TIFF" else {"exif": exif, "icc_profile": b"a profile", "xmp": b"a packet"}
    data = saved(RGB, form, **options)
    bare = without_metadata(data, form.lower())
    assert decode_rgb(bare).tobytes() == decode_rgb(data).tobytes()
    with Image.open(io.BytesIO(bare)) as image:
        assert 0x010E not in image.getexif()
        assert not {"exif", "icc_profile", "xmp", "XML:com.adobe.xmp"} & set(image.info)
    kept = without_metadata(data, form.lower(), keep_exif=True)
    with Image.open(io.BytesIO(kept)) as image:
        assert image.getexif()[0x010E] == "a description"
