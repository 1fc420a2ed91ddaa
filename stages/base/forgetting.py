"""Taking samples out of finished artifacts: what every stage's `forget.py` shares.

A stage's `forget(artifact, inputs, gone, out)` writes new versions of the files concerned below `out` and says what it
did; with ``out=None`` it only counts. Files without a forgotten sample are not touched.
"""

from __future__ import annotations

import tarfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.base.artifact import Artifact

if TYPE_CHECKING:
    import pyarrow as pa

#: Role -> the artifacts that filled it; None for one that is no longer in the workspace.
Known = Mapping[str, Sequence[Artifact | None]]

_BLOCK, _RECORD = 512, 10_240


@dataclass(frozen=True)
class Gone:
    """What is to go from one artifact."""

    pairs: frozenset[str]
    """uids of pairs."""
    images: frozenset[str]
    """image_uids without any pair left, in this artifact."""

    def has_pair(self, column: pa.ChunkedArray) -> pa.ChunkedArray:
        """Which uids of a column are forgotten pairs, as booleans."""
        return _among(column, self._pairs)

    def has_image(self, column: pa.ChunkedArray) -> pa.ChunkedArray:
        """Which uids of a column are forgotten images, as booleans."""
        return _among(column, self._images)

    @cached_property
    def _pairs(self) -> pa.Array:
        import pyarrow as pa

        return pa.array(sorted(self.pairs), pa.string())

    @cached_property
    def _images(self) -> pa.Array:
        import pyarrow as pa

        return pa.array(sorted(self.images), pa.string())


def _among(column: pa.ChunkedArray, values: pa.Array) -> pa.ChunkedArray:
    import pyarrow.compute as pc

    return pc.is_in(column, value_set=values)


@dataclass
class Taken:
    """What was taken out of one artifact, or would be."""

    samples: int = 0
    """Pairs, or images where the artifact has no pairs."""
    files: list[str] = field(default_factory=list)
    """Files with another content now."""
    removed: list[str] = field(default_factory=list)
    """Files that are gone."""
    counts: Counter[str] = field(default_factory=Counter)
    """To be added to the artifact's counts; mostly negative."""

    def __bool__(self) -> bool:
        return bool(self.files or self.removed)


Forget = Callable[[Artifact, Known, Gone, Path | None], Taken]


def parquet_rows(
    artifact: Artifact, pattern: str, column: str, lost: Callable[[pa.ChunkedArray], pa.ChunkedArray]
) -> Iterator[tuple[str, pa.Table, pa.Table]]:
    """Name, rows to keep and rows to go, of each parquet file that has rows to go."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    for name in artifact.names(pattern):
        with artifact.open(name) as file:
            # One column first: most files are not concerned.
            parquet = pq.ParquetFile(file)
            mask = lost(parquet.read(columns=[column])[column])
            if not pc.any(mask).as_py():
                continue
            table = parquet.read()
        yield name, table.filter(pc.invert(mask)), table.filter(mask)


def write_parquet(table: pa.Table, out: Path | None, name: str, **settings: Any) -> None:
    """Write a table below `out`, if there is one."""
    import pyarrow.parquet as pq

    if out is not None:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, out / name, **settings)


def copy_members(source: Path, target: Path, drop: Callable[[str], bool]) -> dict[str, int]:
    """Copy a tar without some members, header and data of the others byte for byte; returns where each one's data
    begin now. What comes out is what the tar's writer would have made of the members that are left."""
    offsets: dict[str, int] = {}
    with tarfile.open(source) as tar, open(source, "rb") as old, open(target, "wb") as new:
        for member in tar:
            if drop(member.name):
                continue
            offsets[member.name] = new.tell() + member.offset_data - member.offset
            old.seek(member.offset)
            _copy(old, new, member.offset_data - member.offset + -(-member.size // _BLOCK) * _BLOCK)
        new.write(bytes(2 * _BLOCK))
        new.write(bytes(-new.tell() % _RECORD))
    return offsets


def _copy(old: Any, new: Any, length: int) -> None:
    while length:
        chunk = old.read(min(length, 1 << 20))
        if not chunk:
            raise EOFError(f"{old.name}: ends in the middle of a member")
        new.write(chunk)
        length -= len(chunk)
