"""Removing samples from finished artifacts: the types and helpers that the `forget.py` of every stage shares."""

from __future__ import annotations

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
ForgetInputs = Mapping[str, Sequence[Artifact | None]]

_BLOCK, _RECORD = 512, 10_240


@dataclass(frozen=True)
class Forgotten:
    """The samples to remove from one artifact."""

    pairs: frozenset[str]
    """uids of pairs."""
    images: frozenset[str]
    """image_uids that no remaining pair of this artifact refers to."""

    def pair_mask(self, column: pa.ChunkedArray) -> pa.ChunkedArray:
        """Boolean per uid of a column (hex digits, or 16 bytes): whether it is that of a forgotten pair."""
        return _is_in(column, self._pairs)

    def image_mask(self, column: pa.ChunkedArray) -> pa.ChunkedArray:
        """Boolean per image_uid of a column (hex digits, or 16 bytes): whether it is that of a forgotten image."""
        return _is_in(column, self._images)

    @cached_property
    def _pairs(self) -> pa.Array:
        import pyarrow as pa

        return pa.array(sorted(self.pairs), pa.string())

    @cached_property
    def _images(self) -> pa.Array:
        import pyarrow as pa

        return pa.array(sorted(self.images), pa.string())


def _is_in(column: pa.ChunkedArray, values: pa.Array) -> pa.ChunkedArray:
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_fixed_size_binary(column.type):
        from stages.base.uids import packed

        values = packed(values)
    return pc.is_in(column, value_set=values)


@dataclass
class Removal:
    """What was removed from one artifact, or would be in a dry run."""

    samples: int = 0
    """Pairs, or images where the artifact has no pairs."""
    rewritten: list[str] = field(default_factory=list)
    """Files with new contents."""
    deleted: list[str] = field(default_factory=list)
    """Files that no longer belong to the artifact."""
    counts: Counter[str] = field(default_factory=Counter)
    """Changes of the artifact's counts; mostly negative."""

    def __bool__(self) -> bool:
        return bool(self.rewritten or self.deleted)


def split_parquet(
    artifact: Artifact, pattern: str, column: str, mask: Callable[[pa.ChunkedArray], pa.ChunkedArray]
) -> Iterator[tuple[str, pa.Table, pa.Table]]:
    """Name, rows to keep and rows to remove, of each Parquet file that has rows to remove.

    `mask` returns a boolean per value of `column`: whether its row is to be removed.
    """
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    for name in artifact.names(pattern):
        with artifact.open(name) as file:
            # One column first: most files are not concerned.
            parquet = pq.ParquetFile(file)
            removed = mask(parquet.read(columns=[column])[column])
            if not pc.any(removed).as_py():
                continue
            table = parquet.read()
        yield name, table.filter(pc.invert(removed)), table.filter(removed)


def write_parquet(table: pa.Table, out: Path | None, name: str, **settings: Any) -> None:
    """Write a table below `out`, if there is one."""
    import pyarrow.parquet as pq

    if out is not None:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, out / name, **settings)


def copy_members(source: Path, target: Path, drop: Callable[[str], bool]) -> dict[str, int]:
    """Copy a tar without some members, header and data of the others byte for byte; returns the offset of each one's
    data in the copy. The result is what the tar's writer would have made of the remaining members."""
    import tarfile

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
