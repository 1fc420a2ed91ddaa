"""Ranges and key columns at sizes that columns of text cannot have."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.base.ranges import RangePart, as_json, bundled, from_json
from stages.base.uids import UID, bytes_of, packed
from stages.index.columns import Column, first_of, starts_of
from stages.index.schema import IMAGES, PAIRS, images_schema


@given(st.lists(st.integers(0, 20), max_size=20), st.integers(1, 30))
def test_ranges_are_runs_of_parts_as_long_as_they_may_be(pairs: list[int], most: int) -> None:
    parts = [RangePart(n % 3, f"{n:05d}", count // 2, count) for n, count in enumerate(pairs)]
    ranges = bundled(parts, most)
    assert [part for it in ranges for part in it.parts] == [(part.source, part.digits) for part in parts]
    assert all(it.pairs <= most or len(it.parts) == 1 for it in ranges)
    for it, after in pairwise(ranges):
        assert after.first_pair == it.first_pair + it.pairs
        assert after.first_image == it.first_image + it.images
        assert it.pairs + pairs[int(after.parts[0][1])] > most
    assert from_json(as_json(ranges)) == ranges


def test_no_key_is_text_and_no_row_of_all_ranges_a_short_integer() -> None:
    for schema in (IMAGES, PAIRS, images_schema(["phash"])):
        assert not any(pa.types.is_string(field.type) for field in schema)
    assert (IMAGES.field("image_uid").type, PAIRS.field("uid").type) == (UID, UID)
    assert {images_schema(["phash"]).field(name).type for name in ("group", "class_phash")} == {pa.int64()}


def test_values_are_taken_by_rows_of_any_range(tmp_path) -> None:
    sizes = [3, 0, 4, 0, 1]
    wide = Column(str(tmp_path / "wide"), starts_of(sizes), "uint8", 5)
    flat = Column(str(tmp_path / "flat"), starts_of(sizes), "int64")
    values = np.random.default_rng(0).integers(0, 255, (8, 5), dtype=np.uint8)
    for number, (begin, size) in enumerate(zip(starts_of(sizes), sizes, strict=False)):
        with wide.writing(number) as write:  # in two parts
            write(values[begin : begin + size // 2])
            write(values[begin + size // 2 : begin + size])
        flat.write(number, np.arange(begin, begin + size) * 10)
    rows = np.array([7, 0, 3, 6, 3, 2])
    assert (wide.take(rows) == values[rows]).all()
    assert flat.take(rows).tolist() == (rows * 10).tolist()
    assert flat.range_of(rows).tolist() == [4, 0, 2, 2, 2, 0]
    assert flat.take(rows[:0]).tolist() == flat.of(1).tolist() == []
    assert wide.of(1).shape == (0, 5)


@pytest.mark.slow
def test_68_million_keys_fit_into_a_column() -> None:
    million, text = 1 << 20, 32
    random = np.random.default_rng(0).integers(0, 16, (million, text))
    digits = np.frombuffer(b"0123456789abcdef", dtype=np.uint8)[random]
    offsets = pa.py_buffer(np.arange(0, text * million + 1, text, dtype=np.int32))
    chunk = pa.Array.from_buffers(pa.string(), million, [None, offsets, pa.py_buffer(digits)])
    listed = pa.chunked_array([chunk] * 65)  # 68 million, whose text is longer than 32-bit offsets reach
    short = packed(listed)
    assert len(short) == 65 * million
    last = short.take(pa.array([0, 64 * million, len(short) - 1]))
    assert [key.hex() for key in last.to_pylist()] == [chunk[0].as_py(), chunk[0].as_py(), chunk[-1].as_py()]
    first = first_of(bytes_of(short))
    assert (first.reshape(65, million) == np.arange(million)).all()
