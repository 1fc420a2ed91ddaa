"""The verdicts of a `select` artifact, range by range: how all that comes after selection reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from stages.base.artifact import Artifact
from stages.base.contract import UserError
from stages.base.ranges import RANGES, Range, from_json

if TYPE_CHECKING:
    import pyarrow as pa

#: Glob pattern of the files with verdicts.
FILES = "verdicts-*.parquet"


def verdict_file(number: int) -> str:
    """Name of the file with a range's verdicts: rows in the order of its parts, in each by (`image_uid`, `uid`)."""
    return f"verdicts-{number:05d}.parquet"


def verdict_ranges(verdicts: Artifact) -> list[Range]:
    """All ranges, in order, as they were when the index was made: pairs forgotten since are counted.

    Raises UserError for an artifact that an earlier version made.
    """
    try:
        return from_json(verdicts.read_json(RANGES))
    except FileNotFoundError:
        raise UserError(
            f"{verdicts.url} has no {RANGES}: it was made by an earlier version; run select again"
        ) from None


def read_verdicts(verdicts: Artifact, of: Range, columns: Sequence[str]) -> pa.Table:
    """Columns of one range's verdicts."""
    import pyarrow.parquet as pq

    with verdicts.open(verdict_file(of.number)) as file:
        return pq.read_table(file, columns=list(columns))
