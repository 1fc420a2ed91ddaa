"""Comparing a shard with its index byte by byte: every header, part, gap and padding of the tar is accounted for."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO

from stages.shard.index import checksum
from stages.shard.problem import Problem
from stages.shard.row import Row

_BLOCK = 512
_PIECE = 1 << 20
_SUM = slice(148, 156)

#: What mends a shard that is not what was written.
RESTORE = "restore the file and its index.arrow from a copy, or remove the artifact and run `pairmill run shard`"

#: Says what is wrong with a sample's parts (by `image`, `text`, `json`), if anything.
Look = Callable[[Row, dict[str, bytes]], Iterator[str]]


@dataclass(frozen=True)
class _Place:
    """A part of a sample, where the index has it."""

    row: Row
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
    """One shard held against its rows, one sample's parts in memory at a time."""

    def __init__(self, name: str, file: IO[bytes], size: int, short: bool, rows: Sequence[Row], look: Look) -> None:
        """`size` of the file; `short`: whether it had more bytes once."""
        self._name = name
        self._file = file
        self._size = size
        self._short = short
        self._rows = rows
        self._look = look
        self._taken: set[tuple[int, int]] = set()
        """[start, stop) of every member that is where a row says, with header and padding."""
        self._misplaced: list[_Place] = []
        """Places where the tar has no such member."""
        self._unlisted: dict[str, tuple[int, int]] = {}
        """Offset and length by name of members that no row points at."""

    def problems(self) -> Iterator[Problem]:
        """All that is wrong: sample by sample, then index rows without a member, then members without a row."""
        lost: list[_Place] = []
        for row in self._rows:
            places = _places(row)
            beyond = [place for place in places if place.offset + place.length > self._size]
            if beyond and self._short:
                lost.append(min(beyond, key=lambda place: place.offset))
                self._taken |= {(place.start, place.end) for place in places if place not in beyond}
            else:
                yield from self._sample(row, places)
        if lost:
            first = min(lost, key=lambda place: place.offset)
            count = f"; {len(lost)} samples from here on are lost" if len(lost) > 1 else ""
            what = f"its {first.part} of {first.length} bytes lies beyond the tar's end at byte {self._size}{count}"
            yield self._problem(first.row.uid, first.offset, what)
        rest = list(self._unaccounted(not lost))
        for place in self._misplaced:
            found = self._unlisted.pop(place.name, None)
            held = f"holds it at offset {found[0]} with {found[1]}" if found else f"holds no {place.name} here"
            what = f"the index has its {place.part} here with {place.length} bytes, the tar {held}"
            yield self._problem(place.row.uid, place.offset, what)
        for name, (offset, length) in self._unlisted.items():
            yield self._problem(None, offset, f"the tar holds {name} ({length} bytes), which the index does not list")
        yield from rest

    def _sample(self, row: Row, places: Sequence[_Place]) -> Iterator[Problem]:
        parts: dict[str, bytes] = {}
        for place in places:
            data = self._read(place.offset, place.length)
            expected = getattr(row, f"{place.part}_xxh3")
            same = expected is None or checksum(data) == expected
            header = _header(self._read(place.start, _BLOCK))
            if header is None and same and expected is not None:
                yield self._problem(row.uid, place.start, f"the tar header of its {place.part} is damaged")
            elif header is None or (header.name, header.size) != (place.name, place.length):
                self._misplaced.append(place)
                continue
            self._taken.add((place.start, place.end))
            if same:
                parts[place.part] = data
            else:
                what = f"its {place.part} is not what was written (its checksum differs)"
                yield self._problem(row.uid, place.offset, what)
            padding = place.offset + place.length
            if self._read(padding, place.end - padding).strip(b"\0"):
                yield self._problem(row.uid, padding, f"the padding behind its {place.part} is damaged")
        if len(parts) == len(places):
            for what in self._look(row, parts):
                yield self._problem(row.uid, row.image_offset, what)

    def _unaccounted(self, whole: bool) -> Iterator[Problem]:
        """Stretches that no row accounts for: members of no row, damage, and the end mark of a `whole` tar."""
        place = 0
        for start, stop in sorted(self._taken):
            place = self._members(place, start)
            if place < start and not self._excused(place, start):
                yield self._problem(None, place, f"{start - place} bytes belong to no member")
            place = max(place, stop)
        if not whole:
            return
        place = self._members(place, self._size)
        if self._excused(place, self._size):
            return
        if self._size - place < 2 * _BLOCK:
            yield self._problem(None, place, "the tar ends without its end mark")
        for start in range(place, self._size, _PIECE):
            piece = self._read(start, min(_PIECE, self._size - start))
            if piece.strip(b"\0"):
                at = start + len(piece) - len(piece.lstrip(b"\0"))
                yield self._problem(None, at, "bytes behind the last member belong to no member")
                return

    def _members(self, place: int, stop: int) -> int:
        """Remember members of no row from `place` on; returns where the first stretch begins that is no member."""
        while place < stop and (header := _header(self._read(place, _BLOCK))) is not None:
            self._unlisted[header.name] = (place + _BLOCK, header.size)
            place += _BLOCK + -(-header.size // _BLOCK) * _BLOCK
        return place

    def _excused(self, start: int, stop: int) -> bool:
        """Whether a row that the tar does not bear out is reported for this stretch anyway."""
        return any(start <= place.start < stop for place in self._misplaced)

    def _read(self, offset: int, length: int) -> bytes:
        if not 0 <= offset < self._size:
            return b""
        self._file.seek(offset)
        return self._file.read(min(length, self._size - offset))

    def _problem(self, uid: str | None, offset: int, what: str) -> Problem:
        return Problem(self._name, what, RESTORE, uid, offset)


def _places(row: Row) -> list[_Place]:
    found = []
    for part, ext in (("image", row.image_ext), ("text", "txt"), ("json", "json")):
        offset, length = getattr(row, f"{part}_offset"), getattr(row, f"{part}_length")
        if length >= 0:
            found.append(_Place(row, part, f"{row.uid}.{ext}", offset, length))
    return found


def _header(block: bytes) -> tarfile.TarInfo | None:
    """A member's header; None where there is none that is whole."""
    try:
        header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return None
    # The sum covers all of the block but itself, and is read leniently.
    return header if block[_SUM] == b"%06o\0 " % header.chksum else None
