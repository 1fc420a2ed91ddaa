"""A raw shard: the tar of fetched images, and the table of attempts with one row for every listed image."""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from stages.download.image import VerifiedImage
from stages.download.outcome import Failure, Reason

if TYPE_CHECKING:
    import pyarrow as pa

_HEADER = 512  # a ustar header; names here are far below its 100 characters, so there is never a second block
_HEX = {"sha256": re.compile(r"[0-9a-fA-F]{64}"), "md5": re.compile(r"[0-9a-fA-F]{32}")}


@dataclass(frozen=True)
class ListedImage:
    """One image of a source's list."""

    image_uid: str
    source: str
    url: str | None
    path: str | None
    hash: tuple[str, str] | None = None
    """Name and lower-case hex digits of the hash of its bytes, if the source lists one."""


class ByteStore(Protocol):
    """A file with the bytes of images."""

    def get(self, start: int, length: int) -> bytes:
        """`length` bytes at offset `start`."""


@dataclass(frozen=True)
class FetchedImage:
    """A fetched image, without its bytes."""

    store: ByteStore
    start: int
    """Offset of its bytes in the store."""
    picture: VerifiedImage
    """With empty `data`."""
    length: int
    sha256: str
    source_sha256: str
    hash_ok: bool | None = None
    """Whether the fetched bytes have the hash that the source lists; None if it lists none."""

    @property
    def data(self) -> bytes:
        """The bytes to store."""
        return self.store.get(self.start, self.length)


def attempts_schema() -> pa.Schema:
    """Arrow schema of `attempts-*.parquet`."""
    import pyarrow as pa

    text, number = pa.string(), pa.int64()
    types = {
        "image_uid": text,
        "source": text,
        "url": text,
        "path": text,
        "status": text,
        "error": text,
        "width": pa.int32(),
        "height": pa.int32(),
        "bytes": number,
        "format": text,
        "sha256": text,
        "source_sha256": text,
        "hash_ok": pa.bool_(),
        "exif_orientation": pa.int8(),
        "ext": text,
        "offset": number,
        "length": number,
    }
    needed = ("image_uid", "source", "status")
    return pa.schema([pa.field(name, kind, nullable=name not in needed) for name, kind in types.items()])


def listed_images(table: pa.Table) -> list[ListedImage]:
    """The distinct images of a table of pairs, sorted by uid."""
    columns = [table.column(name).to_pylist() for name in ("image_uid", "source", "url", "path", "meta")]
    distinct: dict[str, ListedImage] = {}
    for uid, source, url, path, meta in zip(*columns, strict=True):
        known = distinct.get(uid)
        if known is None or known.hash is None:
            distinct[uid] = ListedImage(uid, source, url, path, _listed_hash(meta))
    return [distinct[uid] for uid in sorted(distinct)]


def _listed_hash(meta: str) -> tuple[str, str] | None:
    if '"sha256"' not in meta and '"md5"' not in meta:  # parsing every row would cost more than reading the table
        return None
    columns = json.loads(meta)
    for name, form in _HEX.items():
        value = columns.get(name)
        if isinstance(value, str) and form.fullmatch(value):
            return name, value.lower()
    return None


def attempt_rows(
    images: Sequence[ListedImage],
    outcomes: Sequence[FetchedImage | Failure | None],
    offsets: Mapping[int, int],
    private: bool,
) -> list[dict[str, Any]]:
    """Rows of `attempts`, one per image in the same order; `offsets` by number of the image.

    Rows of a private source contain nothing that could identify an image: neither its location nor error details.
    """
    table = []
    for i, (image, outcome) in enumerate(zip(images, outcomes, strict=True)):
        row: dict[str, Any] = {"image_uid": image.image_uid, "source": image.source}
        if not private:
            row |= {"url": image.url, "path": image.path}
        if isinstance(outcome, FetchedImage):
            picture = outcome.picture
            row |= {
                "status": str(Reason.SUCCESS),
                "width": picture.width,
                "height": picture.height,
                "bytes": outcome.length,
                "format": picture.format,
                "sha256": outcome.sha256,
                "source_sha256": outcome.source_sha256,
                "hash_ok": outcome.hash_ok,
                "exif_orientation": picture.orientation,
                "ext": picture.extension,
                "offset": offsets[i],
                "length": outcome.length,
            }
        elif isinstance(outcome, Failure):
            row |= {"status": str(outcome.status), "error": None if private else outcome.explanation}
            if outcome.status == Reason.HASH_MISMATCH:
                row["hash_ok"] = False
        else:
            raise RuntimeError(f"image {image.image_uid} has no outcome")
        table.append(row)
    return table


def write_tar(path: Path, members: Iterable[tuple[str, bytes]]) -> list[int]:
    """Write a ustar file with fixed headers; returns the offset of each member's data in bytes."""
    offsets = []
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)  # mtime, uid and gid are 0 and the owner's names empty unless set
            info.size = len(data)
            info.mode = 0o644
            offsets.append(tar.offset + _HEADER)
            tar.addfile(info, io.BytesIO(data))
    return offsets
