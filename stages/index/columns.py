"""Columns that are not held in memory: fixed-width values by row, in a file per range that tasks map."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Column:
    """`width` values of a type per row, over all ranges (or buckets), in a folder that all workers share. Picklable."""

    folder: str
    starts: Rows = field(repr=False)
    """First row of each range, and the number of rows."""
    dtype: str
    width: int = 1

    def write(self, number: int, values: NDArray[Any]) -> None:
        """Leave the values of one range, [rows] or [rows, width]; replaces what was left before."""
        with self.writing(number) as write:
            write(values)

    @contextmanager
    def writing(self, number: int) -> Iterator[Callable[[NDArray[Any]], None]]:
        """As :meth:`write`, in several calls of what is entered: one part of the rows after the other."""
        os.makedirs(self.folder, exist_ok=True)
        with open(f"{self._file(number)}.{os.getpid()}.part", "wb") as file:
            yield lambda values: np.ascontiguousarray(values, dtype=self.dtype).tofile(file)
        os.replace(file.name, self._file(number))

    def of(self, number: int) -> NDArray[Any]:
        """The values of one range, mapped: [rows], or [rows, width] of a wider column."""
        file = Path(self._file(number))
        shape = (-1, self.width) if self.width > 1 else (-1,)
        if not file.stat().st_size:  # nothing to map
            return np.empty((0, *shape[1:]), dtype=self.dtype)
        return np.memmap(file, dtype=self.dtype, mode="r").reshape(shape)

    def take(self, rows: Rows) -> NDArray[Any]:
        """The values of any rows, [rows] or [rows, width], in the order given."""
        out = np.empty((len(rows), self.width) if self.width > 1 else len(rows), dtype=self.dtype)
        order = np.argsort(rows, kind="stable")  # so that each file is read from its beginning to its end
        ascending = rows[order]
        ends = np.searchsorted(ascending, self.starts)
        for number in np.flatnonzero(ends[1:] > ends[:-1]):
            part = slice(ends[number], ends[number + 1])
            out[order[part]] = self.of(int(number))[ascending[part] - self.starts[number]]
        return out

    def range_of(self, rows: Rows) -> Rows:
        """Number of the range in which each row lies, int64."""
        return np.searchsorted(self.starts[:-1], rows, side="right") - 1

    def _file(self, number: int) -> str:
        return os.path.join(self.folder, f"{number:07d}.bin")


def starts_of(counts: Any) -> Rows:
    """First row of each range, and the number of all rows, from the rows of each."""
    return np.concatenate([[0], np.cumsum(np.asarray(list(counts), dtype=np.int64))]).astype(np.int64)


def first_of(rows: NDArray[np.uint8]) -> Rows:
    """Per row [n, bytes] the first that is equal to it, int64 [n]."""
    flat = pa.py_buffer(np.ascontiguousarray(rows))
    coded = pa.FixedSizeBinaryArray.from_buffers(pa.binary(rows.shape[1]), len(rows), [None, flat]).dictionary_encode()
    code = coded.indices.to_numpy()
    first = np.empty(len(coded.dictionary), dtype=np.int64)
    first[code[::-1]] = np.arange(len(rows))[::-1]  # the last write wins: the smallest row
    return first[code]


def binary(values: NDArray[np.uint8]) -> pa.Array:
    """Values [n, bytes] as a column of fixed-size binary."""
    flat = pa.py_buffer(np.ascontiguousarray(values))
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(values.shape[1]), len(values), [None, flat])
