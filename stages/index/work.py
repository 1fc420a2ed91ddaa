"""What all tasks of a run of the index share: ranges, sources, and where the passes leave what they hand on."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property

from stages.base.exchange import Exchange
from stages.base.ranges import Range
from stages.imaging.perceptual_hash import BITS, PATCH_BYTES, THUMBNAIL_BYTES
from stages.index.columns import Column, Rows, starts_of
from stages.index.config import Hash
from stages.index.partition import Measured, SourceInputs
from stages.index.schema import file_of


@dataclass(frozen=True)
class IndexWork:
    """Picklable. All files lie in a folder that every worker shares."""

    folder: str
    ranges: tuple[Range, ...]
    sources: tuple[SourceInputs, ...]
    measured: Measured
    hashes: tuple[Hash, ...]
    crops: bool = False
    """Whether crops of the benchmarks' images are looked for."""

    def path(self, table: str, number: int) -> str:
        """Where a range's table is kept between passes."""
        return os.path.join(self.folder, file_of(table, number))

    def made(self, table: str, number: int) -> str:
        """Where a range's finished table is written, to become a file of the artifact."""
        return os.path.join(self.folder, "made", file_of(table, number))

    def exchange(self, name: str) -> Exchange:
        """Rows handed from ranges to as many buckets, or back."""
        return Exchange(os.path.join(self.folder, name), max(1, len(self.ranges)))

    def column(self, name: str, dtype: str = "int64", width: int = 1, starts: Rows | None = None) -> Column:
        """Values by global row of an image, or per range or bucket as many as a pass leaves."""
        return Column(os.path.join(self.folder, name), self.starts if starts is None else starts, dtype, width)

    @cached_property
    def starts(self) -> Rows:
        """First global row of each range, and the number of images."""
        return starts_of(it.images for it in self.ranges)

    @property
    def thumbnails(self) -> Column:
        """uint8 [192] by global row."""
        return self.column("thumbnails", "uint8", THUMBNAIL_BYTES)

    @property
    def patches(self) -> Column:
        """uint8 [256] by global row, where crops are looked for."""
        return self.column("patches", "uint8", PATCH_BYTES)

    def words(self, hash: Hash) -> Column:
        """The hash of each decoded image of a range, uint64 [bits / 64]."""
        return self.column(f"words-{hash}", "uint64", BITS[hash] // 64)
