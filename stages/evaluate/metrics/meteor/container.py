"""One file of several arrays that opens instantly: a JSON header, then arrays, which are memory-mapped."""

from __future__ import annotations

import json
import mmap
import os
import struct
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

_MAGIC = b"pairmill-arrays\n"
_ALIGN = 64
_LENGTH = struct.Struct("<Q")


def write(path: Path, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Write the file atomically: readers see the old one, none, or all of the new one.

    `header` is anything JSON holds. `arrays` are one-dimensional and come back in this machine's byte order.
    """
    places, at = {}, 0
    for name, array in arrays.items():
        places[name] = {"at": at, "count": len(array), "format": array.dtype.char}
        at += -(-array.nbytes // _ALIGN) * _ALIGN
    head = json.dumps({"header": header, "arrays": places, "size": at}).encode()
    start = _start(len(head))
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write((_MAGIC + _LENGTH.pack(len(head)) + head).ljust(start, b"\0"))
            for array in arrays.values():
                file.write(np.ascontiguousarray(array).data)
                file.write(b"\0" * (-array.nbytes % _ALIGN))
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def read(path: Path) -> tuple[dict[str, Any], dict[str, memoryview]]:
    """Header and arrays of a file; the arrays are views of the mapped file, which stays open with them.

    Raises ValueError for an incomplete file, FileNotFoundError where there is none.
    """
    with path.open("rb") as file:
        if not (size := os.fstat(file.fileno()).st_size):
            raise ValueError(f"{path} is empty")
        view = memoryview(mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ))
    fixed = len(_MAGIC) + _LENGTH.size
    if size < fixed or view[: len(_MAGIC)] != _MAGIC:
        raise ValueError(f"{path} is not a file of arrays")
    (length,) = _LENGTH.unpack(view[len(_MAGIC) : fixed])
    if size < fixed + length:
        raise ValueError(f"{path} is cut short")
    head = json.loads(bytes(view[fixed : fixed + length]))
    start = _start(length)
    if size != start + head["size"]:
        raise ValueError(f"{path} is cut short")
    arrays = {}
    for name, place in head["arrays"].items():
        at = start + place["at"]
        arrays[name] = view[at : at + place["count"] * struct.calcsize(place["format"])].cast(place["format"])
    return head["header"], arrays


def _start(length: int) -> int:
    return -(-(len(_MAGIC) + _LENGTH.size + length) // _ALIGN) * _ALIGN
