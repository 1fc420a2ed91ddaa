"""Makes an ONNX network that was exported for one input size accept any size.

ONNX Runtime rejects inputs whose shape differs from the declared one. Depending on the `onnx` package only to change
the declaration would be too much: the file is a protobuf message, and three of its fields are rewritten here
(onnx/onnx.proto: ModelProto.graph = 7; GraphProto.input = 11, output = 12, value_info = 13).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

_IR_VERSION, _GRAPH, _INPUT, _OUTPUT, _VALUE_INFO = 1, 7, 11, 12, 13
_VARINT, _BYTES = 0, 2  # protobuf wire types
_FLOAT = 1  # TensorProto.DataType


def with_free_shapes(model: bytes, inputs: Mapping[str, Sequence[int | str]]) -> bytes:
    """A float network's file with new input shapes; a name in a shape stands for any number.

    Weights that old exporters also list as inputs are removed from that list, so that they count as constants, and
    declared shapes of intermediate results are dropped. Raises ValueError for bytes that are not an ONNX file.
    """
    parts = []
    for number, body, raw in _fields(model):
        if number == _GRAPH:
            raw = _field(_GRAPH, _graph(body, inputs))
        elif number == _IR_VERSION:
            raw = bytes([_IR_VERSION << 3 | _VARINT, 7])  # from version 4 on weights need not be inputs
        parts.append(raw)
    return b"".join(parts)


def _graph(graph: bytes, inputs: Mapping[str, Sequence[int | str]]) -> bytes:
    parts = []
    for number, body, raw in _fields(graph):
        if number == _VALUE_INFO:
            continue
        if number in (_INPUT, _OUTPUT):
            name = next(text for field, text, _ in _fields(body) if field == 1).decode()
            if number == _INPUT and name not in inputs:
                continue
            raw = _field(number, _declaration(name, inputs.get(name) if number == _INPUT else None))
        parts.append(raw)
    return b"".join(parts)


def _declaration(name: str, shape: Sequence[int | str] | None) -> bytes:
    """A ValueInfoProto of floats."""
    tensor = bytes([1 << 3 | _VARINT, _FLOAT])
    if shape is not None:
        dimensions = (
            bytes([1 << 3 | _VARINT]) + _varint(n) if isinstance(n, int) else _field(2, n.encode()) for n in shape
        )
        tensor += _field(2, b"".join(_field(1, dimension) for dimension in dimensions))
    return _field(1, name.encode()) + _field(2, _field(1, tensor))


def _fields(message: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """(number, payload, the whole field) of every field; the payload is empty for numbers."""
    at = 0
    while at < len(message):
        start = at
        key, at = _read_varint(message, at)
        payload = b""
        match key & 7:
            case 0:
                _, at = _read_varint(message, at)
            case 1:
                at += 8
            case 2:
                length, at = _read_varint(message, at)
                payload = message[at : at + length]
                at += length
            case 5:
                at += 4
            case kind:
                raise ValueError(f"not an ONNX file: field of wire type {kind}")
        if at > len(message):
            raise ValueError("not an ONNX file: a field runs past the end")
        yield key >> 3, payload, message[start:at]


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(message):
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise ValueError("not an ONNX file: a number runs past the end")


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _field(number: int, payload: bytes) -> bytes:
    return _varint(number << 3 | _BYTES) + _varint(len(payload)) + payload
