"""Image formats: recognised by content, with their names, file extensions, and whether a file is cut short."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple


class ImageFormat(NamedTuple):
    """A format that can be decoded."""

    pillow: str
    """Name of Pillow's plugin."""
    extension: str
    """File extension without a dot, as raw shards have it."""


#: What :func:`stages.imaging.decode.load` decodes, by the name that `download.keep_formats` and tables use.
FORMATS = {
    "jpeg": ImageFormat("JPEG", "jpg"),
    "png": ImageFormat("PNG", "png"),
    "webp": ImageFormat("WEBP", "webp"),
    "gif": ImageFormat("GIF", "gif"),
    "bmp": ImageFormat("BMP", "bmp"),
    "tiff": ImageFormat("TIFF", "tif"),
    "avif": ImageFormat("AVIF", "avif"),
    "jpeg2000": ImageFormat("JPEG2000", "jp2"),
    "ico": ImageFormat("ICO", "ico"),
    "ppm": ImageFormat("PPM", "ppm"),
}

JPEG_SCAN, JPEG_END = b"\xff\xda", b"\xff\xd9"  # markers (ITU-T T.81, B.1.1.3)

_SIGNATURES = (
    (b"\xff\xd8\xff", "jpeg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
    (b"II+\0", "tiff"),  # BigTIFF
    (b"MM\0+", "tiff"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "jpeg2000"),
    (b"\xff\x4f\xff\x51", "jpeg2000"),  # a bare codestream
    # Recognised so that an outcome can name them; nothing here decodes them.
    (b"\xff\x0a", "jxl"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "jxl"),
    (b"II\xbc\x01", "jxr"),
    (b"8BPS", "psd"),
    (b"qoif", "qoi"),
    (b"icns", "icns"),
    (b"DDS ", "dds"),
    (b"v/1\x01", "exr"),
)
# Brands of ISO base media files that are pictures (ISO/IEC 23008-12 and the AVIF specification).
_AVIF = {b"avif", b"avis"}
_HEIC = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
_NETPBM = re.compile(rb"P[1-6]\s+[#\d]")
_TEXT_HEAD = 1024  # bytes in which a root element must begin


def sniff(data: bytes) -> str | None:
    """The image format according to the first bytes: a key of :data:`FORMATS`, the name of a format that cannot be
    decoded (heic, jxl, jxr, svg, psd, qoi, icns, dds, exr, cur), or None if it is no image."""
    for signature, name in _SIGNATURES:
        if data.startswith(signature):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data[:2] == b"BM" and len(data) > 14 and data[6:10] == b"\0\0\0\0":
        return "bmp"
    if data[4:8] == b"ftyp":
        return _by_brand(data)
    if data[:3] == b"\0\0\1" or data[:3] == b"\0\0\2":
        return _icon(data)
    if _NETPBM.match(data):
        return "ppm"
    return "svg" if _is_svg(data[:_TEXT_HEAD]) else None


def _is_svg(head: bytes) -> bool:
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith((b"<?xml", b"<!--", b"<!doctype svg")):  # an XML prologue, and not that of a page with a drawing
        return b"<svg" in text and b"<html" not in text
    return text.startswith(b"<svg")


def _by_brand(data: bytes) -> str | None:
    end = min(int.from_bytes(data[:4], "big"), len(data), 512)
    brands = {data[8:12], *(data[at : at + 4] for at in range(16, end - 3, 4))}
    return "avif" if brands & _AVIF else "heic" if brands & _HEIC else None


def _icon(data: bytes) -> str | None:
    """ICO or CUR: their signature is three zeros and a 1 or 2, so the first entry of the directory must fit, too."""
    if len(data) < 22 or data[3] or not data[4:6].strip(b"\0") or data[9]:
        return None
    size, offset = struct.unpack_from("<II", data, 14)
    if not size or offset < 22:
        return None
    return "ico" if data[2] == 1 else "cur"


def is_cut(data: bytes, kind: str) -> bool:
    """Whether the file is cut short, according to its format's length field or end marker.

    For WebP it decides, since the decoder shows what there is without an error; metadata that are cut off behind the
    picture do not count. For other formats it tells truncated from corrupt after decoding has failed.
    """
    match kind:
        case "webp":
            return _webp_picture_is_cut(data)
        case "bmp":
            return int.from_bytes(data[2:6], "little") > len(data)
        case "png":
            return b"IEND" not in data[-64:]
        case "jpeg":
            return JPEG_END not in data[-1024:]
        case "gif":
            return not data.rstrip(b"\0").endswith(b";")
        case "avif":
            return any(end > len(data) for _, _, end in _boxes(data))
        case "jpeg2000":
            return JPEG_END not in data[-64:]  # the codestream's end marker (ITU-T T.800, A.4.4) is the same
        case "ico":
            return any(sum(struct.unpack_from("<II", data, at + 8)) > len(data) for at in _entries(data))
    return False


def riff_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and end of the contents of each chunk of a WebP; an end may lie beyond the data."""
    at = 12
    while at + 8 <= len(data):
        end = at + 8 + int.from_bytes(data[at + 4 : at + 8], "little")
        yield data[at : at + 4], at + 8, end
        at = end + (end - at) % 2


def _webp_picture_is_cut(data: bytes) -> bool:
    animated = False
    for kind, _, end in riff_chunks(data):
        if kind in (b"VP8 ", b"VP8L"):
            return end > len(data)
        if end > len(data):
            return not (animated and kind in (b"EXIF", b"XMP "))  # both follow the frames
        animated |= kind == b"ANMF"
    return int.from_bytes(data[4:8], "little") + 8 > len(data)


def _boxes(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and end of each box of an ISO base media file (ISO/IEC 14496-12, 4.2)."""
    at = 0
    while at + 8 <= len(data):
        length, start = int.from_bytes(data[at : at + 4], "big"), at + 8
        if length == 1:
            length, start = int.from_bytes(data[at + 8 : at + 16], "big"), at + 16
        end = at + length if length else len(data)  # 0: to the end of the file
        yield data[at + 4 : at + 8], start, end
        if end < start:
            return
        at = end


def _entries(data: bytes) -> range:
    """Offsets of the entries of an icon's directory."""
    count = int.from_bytes(data[4:6], "little")
    return range(6, min(6 + 16 * count, len(data) - 15), 16)


def icon_sizes(data: bytes) -> Iterator[tuple[int, int]]:
    """Width and height of each picture of an icon by its own header; its directory can say anything."""
    for at in _entries(data):
        (offset,) = struct.unpack_from("<I", data, at + 12)
        head = data[offset : offset + 24]
        if len(head) == 24 and head.startswith(b"\x89PNG"):
            yield struct.unpack_from(">II", head, 16)
        elif len(head) == 24:
            width, height = struct.unpack_from("<ii", head, 4)
            yield abs(width), abs(height) // 2  # picture and mask


_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
# Adam7: first column and row of each pass, and the distance to the next (PNG specification, 8.2).
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_INFLATE_BYTES = 1 << 20


def png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and end of the contents of each chunk of a PNG, the last one as far as there are data; 4 bytes of
    checksum follow an end."""
    at = 8
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        yield data[at + 4 : at + 8], at + 8, min(end, len(data))
        at = end + 4


def has_all_rows(data: bytes) -> bool:
    """Whether the image data of a PNG that Pillow has decoded inflate to as many bytes as its header announces.

    Pillow accepts a PNG whose compressed data end early, with the remaining rows black. Inflates a megabyte at a time
    and stops as soon as the answer is known.
    """
    missing, inflate = 0, zlib.decompressobj()
    for kind, start, end in png_chunks(data):
        if kind == b"IHDR":
            missing = _row_bytes(data[start:end])
        elif kind == b"IDAT":
            rest = data[start:end]
            while rest and missing > 0 and not inflate.eof:
                missing -= len(inflate.decompress(rest, _INFLATE_BYTES))
                rest = inflate.unconsumed_tail
            while missing > 0 and not inflate.eof and (piece := inflate.decompress(b"", _INFLATE_BYTES)):
                missing -= len(piece)
    return missing <= 0


def _row_bytes(header: bytes) -> int:
    """Bytes of all rows including filter bytes, from the contents of the header chunk."""
    width, height, bits, colour, _, _, interlace = struct.unpack_from(">IIBBBBB", header)
    bits *= _CHANNELS[colour]
    if not interlace:
        return int(height * (1 + (width * bits + 7) // 8))
    total = 0
    for x, y, across, down in _PASSES:
        columns, lines = -(-(width - x) // across), -(-(height - y) // down)
        if columns > 0 and lines > 0:
            total += lines * (1 + (columns * bits + 7) // 8)
    return int(total)
