"""Whether a PNG holds all its rows: Pillow takes one whose compressed data end early for whole, the rest black."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
# Adam7: first column and row of each pass, and the distance to the next (PNG specification, 8.2).
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_PIECE = 1 << 20


def has_all_rows(data: bytes) -> bool:
    """Whether the image data of a PNG that Pillow has decoded inflate to as many bytes as its header announces.

    Works through them a megabyte at a time and never further than needed.
    """
    missing, inflate = 0, zlib.decompressobj()
    for kind, body in _chunks(data):
        if kind == b"IHDR":
            missing = _row_bytes(body)
        elif kind == b"IDAT":
            rest = body
            while rest and missing > 0 and not inflate.eof:
                missing -= len(inflate.decompress(rest, _PIECE))
                rest = inflate.unconsumed_tail
            while missing > 0 and not inflate.eof and (piece := inflate.decompress(b"", _PIECE)):
                missing -= len(piece)
    return missing <= 0


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 8
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        yield data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        at += 12 + length


def _row_bytes(header: bytes) -> int:
    """Bytes of all rows with their filter bytes, as the header chunk's contents say."""
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
