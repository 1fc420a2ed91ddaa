"""The table of attempts: one row for every image listed, whatever became of it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from stages.download.image import Picture
from stages.download.outcome import Failure, Reason

if TYPE_CHECKING:
    import pyarrow as pa

_HEX = {"sha256": re.compile(r"[0-9a-fA-F]{64}"), "md5": re.compile(r"[0-9a-fA-F]{32}")}


@dataclass(frozen=True)
class Listed:
    """One image of the list."""

    image_uid: str
    source: str
    url: str | None
    path: str | None
    hash: tuple[str, str] | None = None
    """Name and lower-case hex digits of the hash of its bytes, where the source gives one."""


class Held(Protocol):
    """Where the bytes of pictures are."""

    def get(self, start: int, length: int) -> bytes:
        """Bytes by place."""


@dataclass(frozen=True)
class Stored:
    """A picture that was had, without its bytes."""

    held: Held
    start: int
    picture: Picture
    """With empty `data`."""
    length: int
    sha256: str
    source_sha256: str
    hash_ok: bool | None = None
    """Whether the fetched bytes have the hash that the source lists; None where it lists none."""

    @property
    def data(self) -> bytes:
        """The bytes to store."""
        return self.held.get(self.start, self.length)


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


def listed_images(table: pa.Table) -> list[Listed]:
    """The distinct images of a table of pairs, sorted by uid."""
    columns = [table.column(name).to_pylist() for name in ("image_uid", "source", "url", "path", "meta")]
    distinct: dict[str, Listed] = {}
    for uid, source, url, path, meta in zip(*columns, strict=True):
        found = distinct.get(uid)
        if found is None or found.hash is None:
            distinct[uid] = Listed(uid, source, url, path, _listed_hash(meta))
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


def rows(
    images: Sequence[Listed],
    outcomes: Sequence[Stored | Failure | None],
    offsets: Mapping[int, int],
    private: bool,
) -> list[dict[str, Any]]:
    """Rows of `attempts`, one per image in the same order; `offsets` by number of image.

    Of a private source nothing is told that could identify an image: neither where it was nor what was said of it.
    """
    table = []
    for i, (image, outcome) in enumerate(zip(images, outcomes, strict=True)):
        row: dict[str, Any] = {"image_uid": image.image_uid, "source": image.source}
        if not private:
            row |= {"url": image.url, "path": image.path}
        if isinstance(outcome, Stored):
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
            raise RuntimeError(f"image {image.image_uid} ended without an outcome")
        table.append(row)
    return table
