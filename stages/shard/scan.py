"""Scans tars that have no index: any WebDataset tar, whatever tool wrote it."""

from __future__ import annotations

import json
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from stages.base.contract import UserError
from stages.base.external_files import is_system_file
from stages.shard.index import IndexRow

#: Extensions of members that are images, as WebDataset names them.
IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "avif", "jp2", "ico", "ppm")

_BLOCK = 512
_PIECE = 1 << 20


class BrokenTar(Exception):
    """A tar that cannot be read to its end."""

    def __init__(self, offset: int, what: str, lost: bool = True) -> None:
        super().__init__(what)
        self.offset = offset
        """Bytes into the tar up to which it could be read."""
        self.lost = lost
        """False if all members are complete and only the end mark is missing."""


class Part(NamedTuple):
    """One member of a sample."""

    offset: int
    length: int
    data: bytes | None = None
    """Content of a JSON member; None for all others."""


def iter_samples(file: IO[bytes], passed_over: Counter[str] | None = None) -> Iterator[tuple[str, dict[str, Part]]]:
    """Key and parts by extension of each sample: consecutive members that share a name up to its first dot.

    Members that an operating system adds (macOS: `._NAME` beside each NAME) belong to no sample; `passed_over` counts
    them as `system_files`. Raises BrokenTar after the last complete sample of a damaged tar.
    """
    key, parts = "", dict[str, Part]()
    try:
        for name, extension, part in _members(file, Counter() if passed_over is None else passed_over):
            if name != key or extension in parts:
                if parts:
                    yield key, parts
                key, parts = name, {}
            parts[extension] = part
    except BrokenTar as broken:
        if not broken.lost and parts:
            yield key, parts
        raise
    if parts:
        yield key, parts


def _members(file: IO[bytes], passed_over: Counter[str]) -> Iterator[tuple[str, str, Part]]:
    after = 0
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # otherwise it keeps every header of the tar
                after = member.offset_data
                if member.isfile() and is_system_file(member.name):
                    passed_over["system_files"] += 1
                    after = member.offset_data + member.size
                    _require(file, after)
                elif member.isfile():
                    folder, _, base = member.name.rpartition("/")
                    stem, _, extension = base.partition(".")
                    reader = tar.extractfile(member) if extension.lower() == "json" else None
                    data = reader.read() if reader else None
                    after = member.offset_data + member.size
                    _require(file, after)
                    name = f"{folder}/{stem}" if folder else stem
                    yield name, extension.lower(), Part(member.offset_data, member.size, data)
            end = tar.offset
    except tarfile.TarError as error:
        raise BrokenTar(after, f"not a readable tar ({error})") from None
    # The library treats a damaged header as the end of the tar.
    file.seek(end)
    block = file.read(_BLOCK)
    if not block:
        raise BrokenTar(end, "the tar ends without its end mark", lost=False)
    if len(block) < _BLOCK or block.strip(b"\0"):
        raise BrokenTar(end, "the header there is damaged")
    while piece := file.read(_PIECE):
        if piece.strip(b"\0"):
            raise BrokenTar(
                end, "more follows the end mark there, which readers of tars pass over (several tars in one?)"
            )


def _require(file: IO[bytes], end: int) -> None:
    file.seek(end - 1 if end else 0)
    if end and not file.read(1):
        raise BrokenTar(end, "the tar ends in the middle of a member")


def to_row(shard: int, key: str, parts: dict[str, Part]) -> IndexRow:
    """The index row of a sample. `uid`, `image_uid`, `source` come from its JSON; the first two default to the key.

    Raises ValueError, without quoting the sample, if it has no image or its JSON is invalid.
    """
    absent = Part(0, -1)
    extension = next((e for e in IMAGE_EXTENSIONS if e in parts), None)
    if extension is None:
        raise ValueError(f"holds no image, only {', '.join(parts)}")
    image, text, record = parts[extension], parts.get("txt", absent), parts.get("json", absent)
    meta: Any = {}
    if record.data is not None:
        try:
            meta = json.loads(record.data)
        except ValueError:
            raise ValueError("holds a .json that is not JSON") from None
    meta = meta if isinstance(meta, dict) else {}
    uid = str(meta.get("uid", key))
    identity = (uid, str(meta.get("image_uid", uid)), str(meta.get("source", "")))
    return IndexRow(*identity, shard, extension, *image[:2], *text[:2], *record[:2])


def scan(file: IO[bytes], name: str, shard: int = 0) -> list[IndexRow]:
    """Index any WebDataset tar by reading it once; `name` is its name in error messages.

    Raises UserError naming tar, key and offset for a sample without an image and for a file that is a damaged tar or
    not a tar.
    """
    rows = []
    try:
        for key, parts in iter_samples(file):
            try:
                rows.append(to_row(shard, key, parts))
            except ValueError as error:
                offset = min(part.offset for part in parts.values())
                raise UserError(f"{name}: sample {key} at offset {offset} {error}") from None
    except BrokenTar as broken:
        if broken.lost:
            raise UserError(f"{name}: at offset {broken.offset}: {broken}; fetch or write it again") from None
    return rows


def scan_tar(path: Path, shard: int = 0) -> list[IndexRow]:
    """:func:`scan` of a local file."""
    with open(path, "rb") as file:
        return scan(file, str(path), shard)
