"""Takes out of an image file what is not pixels, without touching those: profiles, EXIF, XMP, texts, comments.

Decoders read metadata first and give up on what they cannot read, or on what is larger than they allow (Pillow reads
1 MiB of a PNG's profile or compressed text). Such a file is decoded, and stored, without them.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from stages.imaging.formats import png_chunks, riff_chunks

# Markers without a length (ITU-T T.81, B.1.1.3): TEM, RST0 to RST7, SOI, EOI.
_BARE = {0x01, *range(0xD0, 0xDA)}
_SOS, _COMMENT, _APP0, _APP1, _APP14 = 0xDA, 0xFE, 0xE0, 0xE1, 0xEE
# TIFF 6.0's tags that say how strips or tiles become pixels, with those of its supplements for JPEG; orientation (274)
# is one of them.
_TIFF_PIXELS = {
    *(254, 255, 256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 284, 292, 293, 317, 320, 321),
    *(322, 323, 324, 325, 332, 338, 339, 340, 341, 347, 512, 513, 514, 515, 519, 520, 521, 529, 530, 531, 532),
}


def without_metadata(data: bytes, kind: str, keep_exif: bool = False) -> bytes:
    """The same picture without metadata, bit for bit; `data` itself if there are none or the format has no way.

    `kind` is a key of :data:`stages.imaging.formats.FORMATS`. With `keep_exif` its EXIF stays, which may hold the
    orientation. Of an animated PNG the default picture remains, which is the first one.
    """
    match kind:
        case "png":
            return _png(data, keep_exif)
        case "jpeg":
            return _jpeg(data, keep_exif)
        case "webp":
            return _webp(data, keep_exif)
        case "gif":
            return _gif(data)
        case "tiff":
            return data if keep_exif else _tiff(data)
    return data


def _png(data: bytes, keep_exif: bool) -> bytes:
    """Header, palette, transparency, picture data and end. A transparency that does not fit is left out, too, as
    libpng does."""
    kept, colour, colours = [data[:8]], -1, 0
    for kind, start, end in png_chunks(data):
        body, checksum = data[start:end], data[end : end + 4]
        if kind == b"IEND":
            break
        if kind == b"IHDR" and len(body) >= 13:
            colour = body[9]
        elif kind == b"PLTE":
            colours = len(body) // 3
        elif kind == b"tRNS":
            fits = {0: len(body) == 2, 2: len(body) == 6, 3: 0 < len(body) <= colours}.get(colour, False)
            if not fits or checksum != _checksum(kind + body):
                continue
        elif kind != b"IDAT" and kind[:1].islower() and not (keep_exif and kind == b"eXIf"):
            continue  # ancillary (PNG specification, 5.4)
        checksum = checksum if len(checksum) == 4 else _checksum(kind + body)
        kept.append(struct.pack(">I", len(body)) + kind + body + checksum)
    kept.append(struct.pack(">I", 0) + b"IEND" + _checksum(b"IEND"))
    clean = b"".join(kept)
    return data if clean == data else clean


def _checksum(data: bytes) -> bytes:
    return struct.pack(">I", zlib.crc32(data))


def _jpeg(data: bytes, keep_exif: bool) -> bytes:
    """All but comments and application segments; those of JFIF and Adobe stay, which say what the colours mean.

    Ends with the end marker, if there is one: what follows may be a second picture that the metadata announced.
    """
    kept, at = [data[:2]], 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # filling
            at += 1
            continue
        if marker == _SOS:
            break
        end = at + 2 if marker in _BARE else at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        segment, at = data[at:end], end
        application = _APP0 <= marker <= 0xEF
        needed = (marker == _APP0 and segment[4:8] == b"JFIF") or (marker == _APP14 and segment[4:9] == b"Adobe")
        exif = keep_exif and marker == _APP1 and segment[4:10] == b"Exif\0\0"
        if marker != _COMMENT and (not application or needed or exif):
            kept.append(segment)
    clean = b"".join(kept) + data[at:]
    return data if clean == data else clean


def _webp(data: bytes, keep_exif: bool) -> bytes:
    """The chunks of the picture or its frames, with their announcement (VP8X) and length set right."""
    kept, exif = [], b""
    for kind, start, end in riff_chunks(data):
        if end > len(data):
            break
        chunk = kind + struct.pack("<I", end - start) + data[start:end] + b"\0" * ((end - start) % 2)
        if kind == b"EXIF" and keep_exif:
            exif = exif or chunk
        elif kind in (b"VP8X", b"ALPH", b"VP8 ", b"VP8L", b"ANIM", b"ANMF"):
            kept.append(chunk)
    flags = 0x12 | (0x08 if exif else 0)  # of the profile, alpha, EXIF, XMP and animation flags, those that stay true
    kept = [_flagged(chunk, flags) if chunk[:4] == b"VP8X" else chunk for chunk in kept]
    body = b"WEBP" + b"".join(kept) + exif
    clean = b"RIFF" + struct.pack("<I", len(body)) + body
    return data if clean == data else clean


def _flagged(chunk: bytes, mask: int) -> bytes:
    return chunk[:8] + bytes([chunk[8] & mask]) + chunk[9:] if len(chunk) > 8 else chunk


def _gif(data: bytes) -> bytes:
    """All blocks but comments, plain texts and applications' (GIF89a, 24 to 26)."""
    kept, at = [], 0
    for start, end, extension in _gif_blocks(data):
        if extension in (0x01, 0xFE, 0xFF):
            kept.append(data[at:start])
            at = end
    return b"".join([*kept, data[at:]]) if kept else data


def _gif_blocks(data: bytes) -> Iterator[tuple[int, int, int | None]]:
    """Start and end of each block of a GIF, and its label if it is an extension."""
    if len(data) < 13:
        return
    at = 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)
    while at + 2 <= len(data):
        start, extension = at, None
        if data[at] == 0x21:
            extension, at = data[at + 1], at + 2
        elif data[at] == 0x2C and at + 11 <= len(data):
            packed = data[at + 9]
            at += 11 + (3 << (packed & 7) + 1 if packed & 0x80 else 0)
        else:
            return
        while at < len(data) and data[at]:
            at += 1 + data[at]
        at += 1
        yield start, at, extension


def _tiff(data: bytes) -> bytes:
    """The file with another first directory, appended: the tags that decide pixels, and no further picture."""
    if data[:4] not in (b"II*\0", b"MM\0*"):  # BigTIFF stays as it is
        return data
    order = "<" if data[:2] == b"II" else ">"
    (at,) = struct.unpack_from(order + "I", data, 4)
    if at + 2 > len(data):
        return data
    (count,) = struct.unpack_from(order + "H", data, at)
    entries = [data[n : n + 12] for n in range(at + 2, min(at + 2 + 12 * count, len(data) - 11), 12)]
    kept = [entry for entry in entries if struct.unpack(order + "H", entry[:2])[0] in _TIFF_PIXELS]
    if len(kept) == len(entries):
        return data
    start = len(data) + len(data) % 2
    directory = struct.pack(order + "H", len(kept)) + b"".join(kept) + bytes(4)
    return data[:4] + struct.pack(order + "I", start) + data[8:] + bytes(len(data) % 2) + directory
