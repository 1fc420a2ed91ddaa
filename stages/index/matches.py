"""Pictures that are held in memory, compared with those of a benchmark."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stages.base.contract import UserError
from stages.base.uids import bytes_of
from stages.index.columns import Rows
from stages.index.config import Hash
from stages.index.hamming import Words, distances, near_between
from stages.index.likeness import differences
from stages.index.schema import NEAR

STEP = 250_000  # pairs of pictures that are compared at a time: some 100 MB of thumbnails


@dataclass(frozen=True)
class Pictures:
    """What is compared, row by row, and how."""

    hash: Hash
    words: Words
    """[n, bits / 64]"""
    thumbnails: NDArray[np.uint8]
    """[n, 192]"""

    @staticmethod
    def of(table: pa.Table, hash: Hash) -> Pictures:
        """From the fixed-size binary columns of that name and `thumbnail`."""
        return Pictures(hash, bytes_of(table[hash]).view(">u8").astype(np.uint64), bytes_of(table["thumbnail"]))

    def __len__(self) -> int:
        return len(self.words)

    def take(self, rows: NDArray[Any]) -> Pictures:
        """Some of the rows, in the order given."""
        return Pictures(self.hash, self.words[rows], self.thumbnails[rows])

    def compare(self, rows: Rows, base: Pictures, others: Rows) -> pa.Table:
        """Columns `distance`, `difference`, `relative_difference` of pairs (row here, row of `base`)."""
        plain, relative = differences(self.thumbnails[rows], base.thumbnails[others], self.hash == "phash_d4")
        columns = [distances(self.words[rows], base.words[others]), plain, relative]
        return pa.table([pa.array(column) for column in columns], names=NEAR.names[2:])


def near_matches(pictures: Pictures, base: Pictures, radius: int, most: int) -> pa.Table:
    """Rows (first: of `pictures`, second: of `base`, and how much they differ), unsorted, one per near pair.

    Raises UserError for more than `most`.
    """
    parts, count = [NEAR.empty_table()], 0
    for row, other in near_between(pictures.words, base.words, radius):
        count += len(row)
        refuse_crowds(count, most)
        for begin in range(0, len(row), STEP):
            one, two = row[begin : begin + STEP], other[begin : begin + STEP]
            measured = pictures.compare(one, base, two)
            parts.append(pa.table([pa.array(one), pa.array(two), *measured.columns], schema=NEAR))
    return pa.concat_tables(parts)


def refuse_crowds(count: int, most: int) -> None:
    """Raises UserError for more than `most` near pairs."""
    if count > most:
        raise UserError(
            f"index: {count:,} pairs of near pictures or more, above index.max_near={most:,}; lower index.radius and"
            " the selection's radius, or raise the limit if there is room on the disk (26 bytes each)"
        )
