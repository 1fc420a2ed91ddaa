"""uids as 16 bytes: half the memory of their 32 hex digits, and columns of any length.

Arrow's `string` columns have 32-bit offsets, so one column in one piece holds 67 million uids of 32 digits at most;
fixed-size binary has no offsets. Files that people read keep hex digits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

#: Type of a column of uids in tables that the stages join.
UID = pa.binary(16)

_DIGITS = np.frombuffer(b"0123456789abcdef", dtype=np.uint8)
#: The two digits of every byte, side by side.
_PAIRS = np.stack([_DIGITS.repeat(16), np.tile(_DIGITS, 16)], axis=1).view(np.uint16).ravel()
#: Texts of 32 digits that one `string` array holds, whose offsets have 32 bits.
_MOST_TEXTS = ((1 << 31) - 1) // 32
_VALUE = np.full(256, 255, dtype=np.uint8)
_VALUE[_DIGITS] = np.arange(16, dtype=np.uint8)


def packed(uids: pa.Array | pa.ChunkedArray, width: int = 16) -> pa.Array:
    """A column of 32 hex digits (string or large_string, no nulls) as `UID`, in one piece.

    With another `width` any column of twice as many digits, such as digests. Raises ValueError for a value that is not
    that many lower-case hex digits.
    """
    chunks = uids.chunks if isinstance(uids, pa.ChunkedArray) else [uids]
    pieces = [_packed(chunk, 2 * width) for chunk in chunks if len(chunk)]
    data = np.concatenate([np.empty(0, dtype=np.uint8), *pieces])
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), len(data) // width, [None, pa.py_buffer(data)])


def _packed(chunk: pa.Array, digits: int) -> NDArray[np.uint8]:
    wide = pa.types.is_large_string(chunk.type)
    offsets = np.frombuffer(chunk.buffers()[1], dtype=np.int64 if wide else np.int32)
    offsets = offsets[chunk.offset : chunk.offset + len(chunk) + 1].astype(np.int64)
    if chunk.null_count or not (np.diff(offsets) == digits).all():
        raise ValueError(f"a uid is not {digits} hex digits")
    text = np.frombuffer(chunk.buffers()[2], dtype=np.uint8)[offsets[0] : offsets[-1]]
    values = _VALUE[text]
    if (values == 255).any():
        raise ValueError(f"a uid is not {digits} lower-case hex digits")
    return ((values[0::2] << 4) | values[1::2]).astype(np.uint8, copy=False)


def as_hex(uids: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """A column of `UID` as 32 hex digits, `string`, nulls kept; in chunks where they are more than one can hold."""
    if isinstance(uids, pa.ChunkedArray):
        pieces = [uids.slice(begin, _MOST_TEXTS) for begin in range(0, len(uids), _MOST_TEXTS)]
        return pa.chunked_array([as_hex(chunk) for piece in pieces for chunk in piece.chunks], pa.string())
    if len(uids) > _MOST_TEXTS:
        return as_hex(pa.chunked_array([uids]))
    data = bytes_of(uids)
    text = _PAIRS[data]
    offsets = np.arange(0, 32 * len(data) + 1, 32, dtype=np.int32)
    plain = pa.Array.from_buffers(pa.string(), len(data), [None, pa.py_buffer(offsets), pa.py_buffer(text)])
    if not uids.null_count:
        return plain
    import pyarrow.compute as pc

    return pc.if_else(uids.is_valid(), plain, pa.scalar(None, pa.string()))


def bytes_of(column: pa.Array | pa.ChunkedArray) -> NDArray[np.uint8]:
    """A fixed-size binary column as uint8 [n, width]; anything where a value is null."""
    whole: Any = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(whole, pa.ChunkedArray):  # a column of no chunks
        whole = whole.chunk(0) if whole.num_chunks else pa.array([], column.type)
    width = whole.type.byte_width
    if not len(whole):
        return np.empty((0, width), dtype=np.uint8)
    data = np.frombuffer(whole.buffers()[1], dtype=np.uint8)
    return data[whole.offset * width : (whole.offset + len(whole)) * width].reshape(-1, width)


def leading(uids: pa.Array | pa.ChunkedArray) -> NDArray[np.uint64]:
    """The leading 64 bits of each, uint64 [n]: in order of the uids, equal for two of a billion with odds of 3%."""
    return np.ascontiguousarray(bytes_of(uids)[:, :8]).view(">u8").ravel().astype(np.uint64)


def trailing(uids: pa.Array | pa.ChunkedArray) -> NDArray[np.uint64]:
    """The last 64 bits of each, uint64 [n]."""
    return np.ascontiguousarray(bytes_of(uids)[:, 8:]).view(">u8").ravel().astype(np.uint64)


def sort_order(uids: pa.Array | pa.ChunkedArray) -> NDArray[np.int64]:
    """Positions of the uids in ascending order, int64 [n]."""
    return np.lexsort((trailing(uids), leading(uids))).astype(np.int64)
