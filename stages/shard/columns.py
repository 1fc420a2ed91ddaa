"""Single values out of Arrow columns without making an Arrow scalar of each: views of the memory-mapped buffers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

#: Gives the value at a place of a column.
Getter = Callable[[int], Any]


def getter(column: pa.Array) -> Getter:
    """Access to one chunk of a column of strings, dictionary-encoded strings or integers; nothing is copied."""
    if column.null_count or not len(column):
        return lambda place: column[place].as_py()
    if pa.types.is_dictionary(column.type):
        codes, names = getter(column.indices), column.dictionary.to_pylist()
        return lambda place: names[codes(place)]
    if pa.types.is_string(column.type):
        return _strings(column)
    if pa.types.is_integer(column.type):
        # A memoryview gives plain integers, and faster than numpy does.
        return _plain(integers(column))
    return lambda place: column[place].as_py()


def integers(column: pa.Array) -> NDArray[Any]:
    """A chunk of integers without nulls as an array of its own type [length]; `to_numpy` would import pandas."""
    kind = np.dtype(str(column.type))
    if not len(column):
        return np.empty(0, kind)
    return np.frombuffer(column.buffers()[1], kind, len(column), column.offset * kind.itemsize)


def _strings(column: pa.Array) -> Getter:
    _, starts, text = column.buffers()
    first = column.offset
    bounds = _plain(np.frombuffer(starts, np.int32, first + len(column) + 1)[first:])
    data = memoryview(text) if text is not None else memoryview(b"")
    return lambda place: str(data[bounds(place) : bounds(place + 1)], "utf-8")


def _plain(values: NDArray[Any]) -> Getter:
    return cast("Getter", memoryview(values).__getitem__)  # type: ignore[arg-type]  # an array is a buffer
