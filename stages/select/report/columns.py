"""Text columns as small numbers, which is what counting a million of them takes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray


@dataclass(frozen=True)
class Codes:
    """A column of texts as codes into its sorted distinct values."""

    names: list[str]
    of: NDArray[np.int32]
    """Per row; -1 where the row is null."""

    def value(self, name: str) -> int | None:
        """The code of a text, or None when no row has it."""
        return self.names.index(name) if name in self.names else None


def codes(column: pa.ChunkedArray) -> Codes:
    """Codes of a string or dictionary column."""
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    joined = pa.chunked_array(column.chunks, type=column.type).unify_dictionaries().combine_chunks()
    if isinstance(joined, pa.ChunkedArray):  # a column of no chunks
        joined = joined.chunk(0) if joined.num_chunks else pa.array([], column.type)
    values = [str(value) for value in joined.dictionary.to_pylist()]
    indices = pc.fill_null(joined.indices, -1).to_numpy(zero_copy_only=False).astype(np.int32)
    # Only values that occur, in the order of the alphabet: a dictionary's own order is an accident of writing.
    used = np.unique(indices[indices >= 0])
    order = sorted(used.tolist(), key=lambda place: values[place])
    lookup = np.full(len(values) + 1, -1, dtype=np.int32)
    lookup[order] = np.arange(len(order), dtype=np.int32)
    return Codes([values[place] for place in order], lookup[indices])
