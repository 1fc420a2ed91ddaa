"""Which pictures are crops of the benchmarks' images, or these of them: windows are looked up, patches laid over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stages.imaging.perceptual_hash import PATCH_SIDE
from stages.index.alignment import compare
from stages.index.columns import Rows
from stages.index.matches import refuse_crowds
from stages.index.windows import Patches, WindowBase, candidates, textured, window_hashes

#: Bits by which the hashes of a window and of a whole picture may differ. With 8 fewer pictures under a logo are found
#: (docs/duplicates.md), and up to 10 a lookup costs little more.
RADIUS = 10
#: Correlation, and correlation where nothing is laid over the picture, one of which a match reaches: the least bounds
#: of a selection.
LEAST = (0.9, 0.95)

#: Matches as a range leaves them.
MATCHES = pa.schema(
    [
        ("first", pa.int64()),  # the picture
        ("second", pa.int64()),  # the benchmark's image
        ("distance", pa.int16()),
        ("correlation", pa.float32()),
        ("uncovered", pa.float32()),
    ]
)
_QUERIES = 1 << 16  # pictures looked up at a time: some 300 MB with what they need


@dataclass(frozen=True)
class HeldPatches:
    """The benchmarks' images that are textured enough to be looked for."""

    rows: Rows
    """Each one's row among all."""
    patches: Patches
    base: WindowBase

    @staticmethod
    def of(patches: NDArray[np.uint8]) -> HeldPatches:
        """From the patches of all, [n, 256]."""
        square = _square(patches)
        rows = np.flatnonzero(textured(square))
        return HeldPatches(rows, square[rows], WindowBase.of(window_hashes(square[rows])))


def crop_matches(patches: NDArray[np.uint8], rows: Rows, held: HeldPatches, most: int) -> pa.Table:
    """Some rows of `patches` [n, 256] that are a crop of an image held out, or it of them, as :data:`MATCHES`.

    Sorted by (first, second). Raises UserError for more than `most` candidates.
    """
    parts, count = [MATCHES.empty_table()], 0
    if not len(held.rows):
        return parts[0]
    for begin in range(0, len(rows), _QUERIES):
        some = rows[begin : begin + _QUERIES]
        seen = _square(np.asarray(patches[some]))
        fit = np.flatnonzero(textured(seen))
        seen, some = seen[fit], some[fit]
        found = candidates(window_hashes(seen), held.base, RADIUS)
        count += len(found.query)
        refuse_crowds(count, most)
        correlation, uncovered = compare(seen, held.patches, found)
        agree = (correlation >= np.float32(LEAST[0])) | (uncovered >= np.float32(LEAST[1]))
        columns: list[NDArray[Any]] = [some[found.query], held.rows[found.base], found.distance, correlation, uncovered]
        parts.append(pa.table([pa.array(column[agree]) for column in columns], schema=MATCHES))
    return pa.concat_tables(parts)


def _square(patches: NDArray[np.uint8]) -> Patches:
    return patches.reshape(-1, PATCH_SIDE, PATCH_SIDE)
