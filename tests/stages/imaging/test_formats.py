"""Formats are told by content, and a file that lacks a part is recognised."""

from __future__ import annotations

import io
import struct
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from stages.imaging.formats import has_all_rows


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def refilled(data: bytes, rows: bytes, pieces: int = 1) -> bytes:
    """The same PNG with other image data, in so many chunks."""
    start, end = data.index(b"IDAT") - 4, data.rindex(b"IEND") - 4
    size = -(-len(rows) // pieces)
    chunks = [chunk(b"IDAT", rows[at : at + size]) for at in range(0, len(rows), size)]
    return data[:start] + b"".join(chunks) + data[end:]


def inflated(data: bytes) -> bytes:
    at = data.index(b"IDAT")
    (length,) = struct.unpack_from(">I", data, at - 4)
    return zlib.decompress(data[at + 4 : at + 4 + length])


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
@settings(deadline=None)
@given(width=st.integers(1, 70), height=st.integers(1, 50), pieces=st.integers(1, 9), lacking=st.integers(1, 40))
def test_every_missing_byte_is_noticed_in_all_kinds_of_pixels(
    mode: str, width: int, height: int, pieces: int, lacking: int
) -> None:
    out = io.BytesIO()
    Image.linear_gradient("L").resize((width, height)).convert(mode).save(out, "PNG")
    data = out.getvalue()
    rows = inflated(data)
    assert has_all_rows(data)
    assert has_all_rows(refilled(data, zlib.compress(rows), pieces))
    assert has_all_rows(refilled(data, zlib.compress(rows + b"more"), pieces))
    assert not has_all_rows(refilled(data, zlib.compress(rows[:-lacking]), pieces))


def test_data_that_inflate_to_far_more_than_the_header_says_are_not_worked_through() -> None:
    out = io.BytesIO()
    Image.new("L", (8, 8)).save(out, "PNG")
    pack = zlib.compressobj(9)
    bomb = b"".join(pack.compress(bytes(1 << 20)) for _ in range(64)) + b"no end"
    assert has_all_rows(refilled(out.getvalue(), bomb))
