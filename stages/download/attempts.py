"""The table of attempts: one row for every image listed, whatever became of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stages.download.image import Picture
from stages.download.outcome import Failure, Reason

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Listed:
    """One image of the list."""

    image_uid: str
    source: str
    url: str | None
    path: str | None


@dataclass(frozen=True)
class Stored:
    """A picture that waits in the spool, without its bytes."""

    start: int
    picture: Picture
    """With empty `data`."""
    length: int
    sha256: str
    source_sha256: str


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
        "exif_orientation": pa.int8(),
        "ext": text,
        "offset": number,
        "length": number,
    }
    needed = ("image_uid", "source", "status")
    return pa.schema([pa.field(name, kind, nullable=name not in needed) for name, kind in types.items()])


def listed_images(table: pa.Table) -> list[Listed]:
    """The distinct images of a table of pairs, sorted by uid."""
    columns = [table.column(name).to_pylist() for name in ("image_uid", "source", "url", "path")]
    distinct = {row[0]: Listed(*row) for row in zip(*columns, strict=True)}
    return [distinct[uid] for uid in sorted(distinct)]


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
                "exif_orientation": picture.orientation,
                "ext": picture.extension,
                "offset": offsets[i],
                "length": outcome.length,
            }
        elif isinstance(outcome, Failure):
            row |= {"status": str(outcome.status), "error": None if private else outcome.explanation}
        else:
            raise RuntimeError(f"image {image.image_uid} ended without an outcome")
        table.append(row)
    return table
