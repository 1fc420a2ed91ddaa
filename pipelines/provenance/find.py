"""Finding the rows of one sample in sorted parquet files, reading as little as possible."""

from __future__ import annotations

from collections.abc import Iterable
from typing import IO, Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from stages.base.artifact import Artifact


def rows(artifact: Artifact, pattern: str, column: str, value: str) -> list[dict[str, Any]]:
    """Rows with that value, from files sorted by the column across all files and within each."""
    return [row for _, row in located(artifact, pattern, column, value)]


def located(artifact: Artifact, pattern: str, column: str, value: str) -> list[tuple[str, dict[str, Any]]]:
    """As :func:`rows`, each row with the name of its file."""
    names = artifact.names(pattern)
    low, high = 0, len(names)
    matches: list[tuple[str, dict[str, Any]]] = []
    # Binary search for the first file whose last value is not below `value`; files without rows are skipped.
    while low < high:
        middle = (low + high) // 2
        position, bounds = _bounds(artifact, names, middle, high, column)
        if bounds is None:
            high = middle
        elif bounds[1] < value:
            low = position + 1
        else:
            high = middle
    for name in names[low:]:
        with artifact.open(name) as file:
            parquet = _parquet(file)
            if parquet.metadata.num_rows:
                if _first(parquet, column) > value:
                    break
                matches += [(name, row) for row in _matching(parquet, column, value)]
    return matches


def scan(artifact: Artifact, pattern: str, column: str, value: str) -> list[dict[str, Any]]:
    """Rows with that value, from files in any order."""
    matches: list[dict[str, Any]] = []
    for name in artifact.names(pattern):
        with artifact.open(name) as file:
            parquet = _parquet(file)
            if column in parquet.schema_arrow.names:
                matches += _matching(parquet, column, value)
    return matches


def first(artifact: Artifact, names: Iterable[str], column: str, value: str) -> dict[str, Any] | None:
    """The first row with that value in files that are looked through in turn; None where there is none."""
    for name in names:
        with artifact.open(name) as file:
            if found := _matching(_parquet(file), column, value):
                return found[0]
    return None


def _parquet(file: IO[bytes]) -> pq.ParquetFile:
    """A table's file, to be read without threads.

    There is little to read, and a process that ends while a thread of Arrow still needs the interpreter is aborted.
    """
    return pq.ParquetFile(file, pre_buffer=False)


def _matching(parquet: pq.ParquetFile, column: str, value: str) -> list[dict[str, Any]]:
    """Rows with that value, from the row groups whose statistics admit it."""
    matches: list[dict[str, Any]] = []
    for group in range(parquet.metadata.num_row_groups):
        low, high = _statistics(parquet, group, column)
        if low <= value <= high:
            mask = pc.equal(parquet.read_row_group(group, columns=[column], use_threads=False)[column], value)
            if pc.any(mask).as_py():
                matches += parquet.read_row_group(group, use_threads=False).filter(mask).to_pylist()
    return matches


def _bounds(
    artifact: Artifact, names: list[str], middle: int, high: int, column: str
) -> tuple[int, tuple[str, str] | None]:
    """The first file from `middle` on that has rows, and its smallest and largest value."""
    for position in range(middle, high):
        with artifact.open(names[position]) as file:
            parquet = _parquet(file)
            if parquet.metadata.num_rows:
                groups = parquet.metadata.num_row_groups
                return position, (_first(parquet, column), _statistics(parquet, groups - 1, column)[1])
    return high, None


def _first(parquet: pq.ParquetFile, column: str) -> str:
    return _statistics(parquet, 0, column)[0]


def _statistics(parquet: pq.ParquetFile, group: int, column: str) -> tuple[str, str]:
    index = parquet.schema_arrow.names.index(column)
    statistics = parquet.metadata.row_group(group).column(index).statistics
    if statistics is not None and statistics.has_min_max:
        return str(statistics.min), str(statistics.max)
    values = pc.drop_null(parquet.read_row_group(group, columns=[column], use_threads=False)[column])
    return (str(pc.min(values).as_py()), str(pc.max(values).as_py())) if len(values) else ("", "")
