"""Compares a shard with its index byte by byte: every header, part, gap and padding of the tar is accounted for."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import IO, Any

from stages.shard.index import IndexRow, checksum

_BLOCK = 512
_PIECE = 1 << 20
_SUM = slice(148, 156)

#: Remedy for a shard that differs from what was written.
RESTORE = "restore the file and its index.arrow from a copy, or remove the artifact and run `pairmill run shard`"

#: Yields what is wrong with a sample, given its parts (by `image`, `text`, `json`).
Look = Callable[[IndexRow, dict[str, bytes]], Iterator[str]]


@dataclass(frozen=True)
class ShardFault:
    """One fault in a folder of shards, located exactly and without quoting a sample's content."""

    file: str
    """Name of the shard, or of the index."""
    what: str
    remedy: str
    uid: str | None = None
    offset: int | None = None
    """Bytes into the shard."""

    def __str__(self) -> str:
        location = self.file
        if self.uid is not None:
            location += f": sample {self.uid}"
        if self.offset is not None:
            location += f" at offset {self.offset}" if self.uid is not None else f": at offset {self.offset}"
        return f"{location}: {self.what}; {self.remedy}"

    def to_json(self) -> dict[str, Any]:
        """All fields by name."""
        return asdict(self)


@dataclass(frozen=True)
class _ExpectedMember:
    """A member of the tar as the index describes it."""

    row: IndexRow
    part: str
    name: str
    offset: int
    length: int

    @property
    def start(self) -> int:
        return self.offset - _BLOCK

    @property
    def end(self) -> int:
        return self.offset + -(-self.length // _BLOCK) * _BLOCK


class TarCheck:
    """Compares one shard with its index rows, holding one sample's parts in memory at a time."""

    def __init__(
        self, name: str, file: IO[bytes], size: int, short: bool, rows: Sequence[IndexRow], look: Look
    ) -> None:
        """`size`: bytes of the file; `short`: whether it is smaller than it was when written."""
        self._name = name
        self._file = file
        self._size = size
        self._short = short
        self._rows = rows
        self._look = look
        self._accounted: set[tuple[int, int]] = set()
        """[start, stop) of every member that lies where its row points, with header and padding."""
        self._misplaced: list[_ExpectedMember] = []
        """Members in the index that the tar does not hold at that offset."""
        self._unlisted: dict[str, tuple[int, int]] = {}
        """Offset and length by name of members that no row points at."""

    def problems(self) -> Iterator[ShardFault]:
        """All problems: sample by sample, then index rows without a member, then members without a row."""
        lost: list[_ExpectedMember] = []
        for row in self._rows:
            members = _expected_members(row)
            beyond = [member for member in members if member.offset + member.length > self._size]
            if beyond and self._short:
                lost.append(min(beyond, key=lambda member: member.offset))
                self._accounted |= {(member.start, member.end) for member in members if member not in beyond}
            else:
                yield from self._sample(row, members)
        if lost:
            first = min(lost, key=lambda member: member.offset)
            count = f"; {len(lost)} samples from here on are lost" if len(lost) > 1 else ""
            what = f"its {first.part} of {first.length} bytes lies beyond the tar's end at byte {self._size}{count}"
            yield self._problem(first.row.uid, first.offset, what)
        rest = list(self._unaccounted(not lost))
        for member in self._misplaced:
            actual = self._unlisted.pop(member.name, None)
            held = f"holds it at offset {actual[0]} with {actual[1]}" if actual else f"holds no {member.name} here"
            what = f"the index has its {member.part} here with {member.length} bytes, the tar {held}"
            yield self._problem(member.row.uid, member.offset, what)
        for name, (offset, length) in self._unlisted.items():
            yield self._problem(None, offset, f"the tar holds {name} ({length} bytes), which the index does not list")
        yield from rest

    def _sample(self, row: IndexRow, members: Sequence[_ExpectedMember]) -> Iterator[ShardFault]:
        parts: dict[str, bytes] = {}
        for member in members:
            data = self._read(member.offset, member.length)
            expected = getattr(row, f"{member.part}_xxh3")
            same = expected is None or checksum(data) == expected
            header = _header(self._read(member.start, _BLOCK))
            if header is None and same and expected is not None:
                yield self._problem(row.uid, member.start, f"the tar header of its {member.part} is damaged")
            elif header is None or (header.name, header.size) != (member.name, member.length):
                self._misplaced.append(member)
                continue
            self._accounted.add((member.start, member.end))
            if same:
                parts[member.part] = data
            else:
                what = f"its {member.part} is not what was written (its checksum differs)"
                yield self._problem(row.uid, member.offset, what)
            padding = member.offset + member.length
            if self._read(padding, member.end - padding).strip(b"\0"):
                yield self._problem(row.uid, padding, f"the padding behind its {member.part} is damaged")
        if len(parts) == len(members):
            for what in self._look(row, parts):
                yield self._problem(row.uid, row.image_offset, what)

    def _unaccounted(self, whole: bool) -> Iterator[ShardFault]:
        """Byte ranges that no row accounts for: members without a row, damage, and the end mark of a `whole` tar."""
        offset = 0
        for start, stop in sorted(self._accounted):
            offset = self._skip_members(offset, start)
            if offset < start and not self._explained(offset, start):
                yield self._problem(None, offset, f"{start - offset} bytes belong to no member")
            offset = max(offset, stop)
        if not whole:
            return
        offset = self._skip_members(offset, self._size)
        if self._explained(offset, self._size):
            return
        if self._size - offset < 2 * _BLOCK:
            yield self._problem(None, offset, "the tar ends without its end mark")
        for start in range(offset, self._size, _PIECE):
            piece = self._read(start, min(_PIECE, self._size - start))
            if piece.strip(b"\0"):
                at = start + len(piece) - len(piece.lstrip(b"\0"))
                yield self._problem(None, at, "bytes behind the last member belong to no member")
                return

    def _skip_members(self, offset: int, stop: int) -> int:
        """Record the members without a row from `offset` on; returns the offset of the first bytes that are none."""
        while offset < stop and (header := _header(self._read(offset, _BLOCK))) is not None:
            self._unlisted[header.name] = (offset + _BLOCK, header.size)
            offset += _BLOCK + -(-header.size // _BLOCK) * _BLOCK
        return offset

    def _explained(self, start: int, stop: int) -> bool:
        """Whether a misplaced member is reported for this range anyway."""
        return any(start <= member.start < stop for member in self._misplaced)

    def _read(self, offset: int, length: int) -> bytes:
        if not 0 <= offset < self._size:
            return b""
        self._file.seek(offset)
        return self._file.read(min(length, self._size - offset))

    def _problem(self, uid: str | None, offset: int, what: str) -> ShardFault:
        return ShardFault(self._name, what, RESTORE, uid, offset)


def _expected_members(row: IndexRow) -> list[_ExpectedMember]:
    found = []
    for part, ext in (("image", row.image_ext), ("text", "txt"), ("json", "json")):
        offset, length = getattr(row, f"{part}_offset"), getattr(row, f"{part}_length")
        if length >= 0:
            found.append(_ExpectedMember(row, part, f"{row.uid}.{ext}", offset, length))
    return found


def _header(block: bytes) -> tarfile.TarInfo | None:
    """A member's header; None for a block that is not an intact header."""
    try:
        header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return None
    # The header's checksum covers the rest of the block only, and the library parses it leniently.
    return header if block[_SUM] == b"%06o\0 " % header.chksum else None
