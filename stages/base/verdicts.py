"""The verdicts of a `select` artifact, range by range: how all that comes after selection reads them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stages.base.artifact import Artifact
from stages.base.contract import UserError

if TYPE_CHECKING:
    import pyarrow as pa

#: Glob pattern of the files with verdicts.
FILES = "verdicts-*.parquet"
_RANGES = "ranges.json"


@dataclass(frozen=True)
class VerdictRange:
    """A range of the index: some parts of the sources, on whose pairs one file has the verdicts."""

    number: int
    parts: tuple[tuple[int, str], ...]
    """Number of the source, as in the inputs `pairs` and `raw`, and the digits in the names of its files."""
    pairs: int
    """Pairs listed when the index was made."""

    @property
    def file(self) -> str:
        """Name of the file with its verdicts: rows in the order of the parts, in each by (`image_uid`, `uid`)."""
        return f"verdicts-{self.number:05d}.parquet"


def verdict_ranges(verdicts: Artifact) -> list[VerdictRange]:
    """All ranges, in order. Raises UserError for an artifact that an earlier version made."""
    try:
        entries = verdicts.read_json(_RANGES)
    except FileNotFoundError:
        raise UserError(
            f"{verdicts.url} has no {_RANGES}: it was made by an earlier version; run select again"
        ) from None
    return [
        VerdictRange(number, tuple((int(source), str(part)) for source, part in entry["parts"]), int(entry["pairs"]))
        for number, entry in enumerate(entries)
    ]


def read_verdicts(verdicts: Artifact, of: VerdictRange, columns: Sequence[str]) -> pa.Table:
    """Columns of one range's verdicts."""
    import pyarrow.parquet as pq

    with verdicts.open(of.file) as file:
        return pq.read_table(file, columns=list(columns))
