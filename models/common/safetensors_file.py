"""Writing a safetensors file whose tensors never lie in memory together."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

#: dtype -> its name in the format.
_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def write_safetensors(
    path: Path,
    tensors: Mapping[str, tuple[torch.dtype, tuple[int, ...]]],
    pieces: Iterable[Tensor],
) -> None:
    """Write the named tensors, in their order, from ``pieces``: CPU tensors, all their elements in turn.

    The format is a length in 8 bytes, a JSON header padded to 8 bytes, and the data without gaps
    (https://huggingface.co/docs/safetensors). The file takes its name when it is whole. Raises ValueError when the
    pieces have another number of elements or another dtype.
    """
    offset = 0
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}  # `transformers` refuses files without it
    for name, (dtype, shape) in tensors.items():
        size = math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    expected = iter([(name, dtype, math.prod(shape)) for name, (dtype, shape) in tensors.items()])
    partial = path.with_name(path.name + ".part")
    with open(partial, "wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        name, dtype, left = "", torch.float32, 0
        for piece in pieces:
            if not piece.numel():
                continue
            while left == 0:
                name, dtype, left = next(expected)
            if piece.dtype != dtype or piece.numel() > left:
                raise ValueError(
                    f"{name}: a piece of {piece.numel()} x {piece.dtype}, expected at most {left} x {dtype}"
                )
            file.write(piece.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
            left -= piece.numel()
        if left or any(count for _, _, count in expected):
            raise ValueError(f"{path}: the pieces are too few")
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
