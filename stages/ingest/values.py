"""Values of lists as the pairs table keeps them: plain JSON, and text that is known to be text."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from json.encoder import encode_basestring_ascii
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

_TEXT = pa.large_string()


def plain(value: Any) -> Any:
    """As JSON has it: NaN is null, bytes are their readable part, dates and the like are text."""
    if isinstance(value, str):
        # A lone surrogate would stop whoever writes the text to a file later.
        return value if value.isascii() else value.encode("utf-8", "replace").decode()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Mapping):
        return {plain(str(key)): plain(item) for key, item in value.items()}
    return str(value)


def is_text(type: pa.DataType) -> bool:
    """Whether a column of this type can hold captions or addresses (one that is null everywhere can)."""
    if pa.types.is_dictionary(type):
        return is_text(type.value_type)
    kinds = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_binary)
    more = (pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_null)
    return any(kind(type) for kind in (*kinds, *more))


def is_list(type: pa.DataType) -> bool:
    """Whether a column of this type holds a list per row."""
    return pa.types.is_list(type) or pa.types.is_large_list(type) or pa.types.is_fixed_size_list(type)


def texts(column: pa.Array) -> list[Any]:
    """Python strings of a column for which :func:`is_text` holds; a value that is not UTF-8 comes back as bytes."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_null(column.type):
        return [None] * len(column)
    raw = column.cast(pa.large_binary())
    try:
        checked = raw.cast(_TEXT)
    except pa.ArrowInvalid:  # one bad row costs one row
        return [_decoded(value) for value in raw.to_pylist()]
    return list(checked.to_pylist())


def _decoded(value: bytes | None) -> str | bytes | None:
    try:
        return None if value is None else value.decode("utf-8")
    except UnicodeDecodeError:
        return value


def json_objects(columns: Mapping[str, pa.Array], rows: int) -> list[str]:
    """One JSON object's text per row, made column by column: the costly half of reading a wide list."""
    if not columns:
        return ["{}"] * rows
    parts: list[Any] = []
    for position, (name, column) in enumerate(columns.items()):
        parts.append(pa.scalar(f"{',' if position else '{'}{json.dumps(name)}:", _TEXT))
        parts.append(pc.coalesce(_json_values(column), pa.scalar("null", _TEXT)))
    parts.append(pa.scalar("}", _TEXT))
    return list(pc.binary_join_element_wise(*parts, pa.scalar("", _TEXT)).to_pylist())


def _json_values(column: pa.Array) -> pa.Array:
    """JSON texts of a column's values, null for null."""
    types = pa.types
    if types.is_boolean(column.type) or types.is_integer(column.type):
        return column.cast(_TEXT)
    if types.is_floating(column.type):
        numbers = column.cast(pa.float32()) if types.is_float16(column.type) else column
        return pc.if_else(pc.is_finite(numbers), numbers.cast(_TEXT), pa.scalar(None, _TEXT))
    if is_text(column.type):
        values = texts(column)
        return pa.array(
            [None if v is None else encode_basestring_ascii(v if isinstance(v, str) else plain(v)) for v in values],
            _TEXT,
        )
    return pa.array([json.dumps(plain(_value(item)), separators=(",", ":")) for item in column], _TEXT)


def _value(item: pa.Scalar) -> Any:
    """A Python value, or None for one that Python has no room for (a date in the year 300,000)."""
    try:
        return item.as_py()
    except (ValueError, OverflowError, pa.ArrowException):
        return None
