"""One part of a source as the index reads it: its pairs, attempts and signals, joined."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from stages.base.artifact import Artifact
from stages.base.contract import UserError
from stages.base.uids import as_hex, bytes_of, packed, sort_order
from stages.imaging.perceptual_hash import BITS, PATCH_BYTES, THUMBNAIL_BYTES
from stages.index.columns import Rows
from stages.index.config import Hash
from stages.index.schema import IMAGES, PAIRS
from stages.index.texts import Phrases, overlaps

#: Scheme, user and password, then the host: all that a URL without surprises has before its path.
_HOST = r"^[a-zA-Z][a-zA-Z0-9+.\-]*://(?:[^/?#@]*@)?(?P<host>\[[^\]/?#]*\]|[^/?#:]*)"


@dataclass(frozen=True)
class SourceInputs:
    """The artifacts of one source."""

    number: int
    name: str
    private: bool
    pairs: Artifact
    raw: Artifact
    signals: Artifact


@dataclass(frozen=True)
class Measured:
    """The scalar columns that the signals of any source have."""

    images: pa.Schema
    pairs: pa.Schema


@dataclass(frozen=True)
class Identity:
    """What tells copies, of the images of a part that were decoded."""

    rows: Rows
    """Rows of the part's images."""
    pixel_sha256: NDArray[np.uint8]
    """[rows, 32]"""
    hashes: dict[Hash, NDArray[np.uint64]]
    """[rows, bits / 64]"""


@dataclass(frozen=True)
class JoinedPart:
    """Rows as in `stages/index/schema.py`."""

    images: pa.Table
    """Up to `decoded`, then the measured columns. `status` and `host` as plain text."""
    identity: Identity
    thumbnails: NDArray[np.uint8]
    """[images, 192]; zero where an image was not decoded."""
    patches: NDArray[np.uint8]
    """[images, 256], likewise; [0, 256] where no crops are looked for."""
    pairs: pa.Table
    """`image` counts within the part."""
    texts: pa.Table
    """As `benchmark-texts`; `pair` counts within the part."""


def rows_of(source: SourceInputs, digits: str) -> tuple[int, int]:
    """Images and pairs of one part, by the ends of its files."""
    counts = []
    for artifact, stem, stage in ((source.raw, "attempts", "download"), (source.pairs, "pairs", "ingest")):
        with _opened(artifact, f"{stem}-{digits}.parquet", stage) as file:
            counts.append(pq.ParquetFile(file).metadata.num_rows)
    return counts[0], counts[1]


def measured_columns(source: SourceInputs, digits: str) -> Measured:
    """The scalar columns of one source, whose parts all have the same.

    Raises UserError for one that is called like a column of the index.
    """
    schemas = []
    for stem, left_out, taken in (
        ("images", {"image_uid", "source", "decoded", "thumbnail"}, set(IMAGES.names)),
        ("pairs", {"uid", "image_uid", "source"}, set(PAIRS.names)),
    ):
        with _opened(source.signals, f"{stem}-{digits}.parquet", "signals") as file:
            schemas.append(pa.schema(_scalars(pq.read_schema(file), left_out, taken, source.name)))
    return Measured(*schemas)


def read(
    source: SourceInputs,
    digits: str,
    measured: Measured,
    hashes: Sequence[Hash],
    phrases: Phrases,
    patches: bool = False,
) -> JoinedPart:
    """Join the tables of one part. Raises UserError where they disagree, list something twice or lack a hash."""
    file = f"{digits}.parquet"
    listed = _table(source.pairs, f"pairs-{file}", "ingest", ["uid", "image_uid", "url", "caption"])
    tried = _table(source.raw, f"attempts-{file}", "download", ["image_uid", "status", "offset", "length"])
    alike = ["pixel_sha256", *hashes, "thumbnail", *(["patch"] if patches else [])]
    signals = _table(
        source.signals, f"images-{file}", "signals", ["image_uid", "decoded", *measured.images.names, *alike]
    )
    said = _table(source.signals, f"pairs-{file}", "signals", ["uid", *measured.pairs.names])
    listed = _in_order(listed, ["image_uid", "uid"], "uid", "pair")
    tried = _in_order(tried, ["image_uid"], "image_uid", "image")
    image_of = _position(listed["image_uid"], tried["image_uid"])
    _refuse(listed["image_uid"], pc.is_null(image_of), source, "image {} was never tried", "download")
    row = _position(tried["image_uid"], packed(signals["image_uid"]))
    fetched = _whole(pc.equal(tried["status"], "success"))
    unmeasured = pc.and_(fetched, pc.is_null(row))
    _refuse(tried["image_uid"], unmeasured, source, "image {} was fetched but not measured", "signals")
    caption = _position(listed["uid"], packed(said["uid"]))
    silent = pc.and_(pc.is_null(caption), pc.take(fetched, image_of))
    _refuse(listed["uid"], silent, source, "the caption of {} was not measured", "signals")
    decoded = _whole(signals["decoded"].take(row))
    images = {
        "image_uid": tried["image_uid"],
        "source": _constant(source.number, tried.num_rows, pa.int16()),
        "status": tried["status"],
        "host": _hosts(image_of, tried.num_rows, listed["url"], source.private),
        "shard": pc.if_else(fetched, pa.scalar(int(digits), pa.int32()), pa.scalar(None, pa.int32())),
        "offset": tried["offset"],
        "length": tried["length"],
        "decoded": decoded,
        **_measured(signals, measured.images, row),
    }
    pairs = {
        "uid": listed["uid"],
        "image": image_of,
        "source": _constant(source.number, listed.num_rows, pa.int16()),
        "measured": pc.is_valid(caption),
        **_measured(said, measured.pairs, caption),
    }
    there = np.flatnonzero(pc.fill_null(decoded, False).to_numpy(zero_copy_only=False))
    for name in alike:
        if name not in signals.column_names:
            raise UserError(
                f"index: the images of source {source.name} have no {name}; add the family `hashes` to signals.families"
            )
    rows, count = row.take(pa.array(there)), tried.num_rows
    identity = _identity(signals, hashes, rows, there)
    thumbnails = _pixels(signals["thumbnail"], rows, there, THUMBNAIL_BYTES, count)
    none = np.empty((0, PATCH_BYTES), dtype=np.uint8)
    seen = _pixels(signals["patch"], rows, there, PATCH_BYTES, count) if patches else none
    texts = overlaps(listed["caption"], phrases)
    return JoinedPart(pa.table(images), identity, thumbnails, seen, pa.table(pairs), texts)


def _opened(artifact: Artifact, name: str, stage: str) -> Any:
    try:
        return artifact.open(name)
    except FileNotFoundError:
        raise UserError(f"index: {stage} made no {name}, though ingest did; run `pairmill run {stage}` again") from None


def _table(artifact: Artifact, name: str, stage: str, columns: Sequence[str]) -> pa.Table:
    """One parquet file of an artifact: those of the columns that it has."""
    with _opened(artifact, name, stage) as file:
        parquet = pq.ParquetFile(file)
        return parquet.read([column for column in columns if column in parquet.schema_arrow.names])


def _in_order(table: pa.Table, keys: Sequence[str], uid: str, what: str) -> pa.Table:
    """The rows sorted by some columns of uids, which become 16 bytes. Raises UserError where one is there twice."""
    short = {key: packed(table[key]) for key in dict.fromkeys([*keys, uid])}
    for key, column in short.items():
        table = table.set_column(table.schema.get_field_index(key), key, column)
    by_uid = sort_order(short[uid])
    data = bytes_of(short[uid])[by_uid]
    twice = np.flatnonzero((data[1:] == data[:-1]).all(axis=1))
    if len(twice):
        name = as_hex(short[uid].take(pa.array(by_uid[twice[:1]])))[0]
        raise UserError(f"index: {what} {name} is listed twice; run `pairmill run ingest` again")
    halves = [column for key in keys for column in bytes_of(short[key]).view(">u8").reshape(-1, 2).T]
    order = np.lexsort(halves[::-1])
    if (order == np.arange(len(order))).all():
        return table
    return table.take(pa.array(order))


def _position(keys: pa.ChunkedArray, among: pa.ChunkedArray | pa.Array) -> pa.Array:
    """Row of each key, int32; null where it is not there."""
    return _whole(pc.index_in(keys, value_set=_whole(among)))


def _whole(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _refuse(uids: pa.ChunkedArray, wrong: Any, source: SourceInputs, message: str, stage: str) -> None:
    wrong_uids = uids.filter(pc.fill_null(wrong, False))
    if len(wrong_uids):
        problem = message.format(as_hex(wrong_uids)[0].as_py())
        raise UserError(f"index: {problem} (source {source.name}); run `pairmill run {stage}` again")


def _constant(value: int, count: int, kind: pa.DataType) -> pa.Array:
    return pa.repeat(pa.scalar(value, kind), count)


def _hosts(image_of: pa.Array, images: int, urls: pa.ChunkedArray, private: bool) -> pa.Array:
    """Host of each image's URL, lower-case; null for local files and private sources."""
    if private:
        return pa.nulls(images, pa.string())
    image = image_of.to_numpy()
    first = np.full(images, -1, dtype=np.int64)
    first[image[::-1]] = np.arange(len(image))[::-1]  # the last write wins: the first pair
    mine = first[image] == np.arange(len(image))
    host = pc.struct_field(pc.extract_regex(pc.utf8_trim_whitespace(urls.filter(pa.array(mine))), _HOST), "host")
    host = pc.utf8_trim(pc.utf8_rtrim(pc.utf8_lower(host), "."), "[]")
    host = _whole(pc.if_else(pc.equal(host, ""), pa.scalar(None, pa.string()), host))
    place = np.cumsum(mine) - 1
    return host.take(pa.array(place[first] if len(place) else first, mask=first < 0))


def _scalars(schema: pa.Schema, left_out: Collection[str], taken: Collection[str], source: str) -> list[pa.Field]:
    """The measured columns with one value per row, but the hashes."""
    fields = []
    for field in schema:
        kind = field.type
        if field.name in left_out or field.name == "pixel_sha256" or field.name.startswith("phash"):
            continue
        if pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_fixed_size_binary(kind):
            continue
        if field.name in taken or field.name.startswith(("class_phash", "similar_phash")):
            raise UserError(f"index: signals of source {source} call a column {field.name!r}, a name of the index")
        fields.append(pa.field(field.name, kind))
    return fields


def _measured(table: pa.Table, schema: pa.Schema, rows: pa.Array) -> dict[str, Any]:
    """The columns of a schema, some rows of them; null where the table does not have one."""
    there = table.select([name for name in schema.names if name in table.column_names]).take(rows)
    return {
        field.name: there[field.name].cast(field.type)
        if field.name in there.column_names
        else pa.nulls(len(rows), field.type)
        for field in schema
    }


def _identity(table: pa.Table, hashes: Sequence[Hash], rows: pa.Array, images: Rows) -> Identity:
    """Digest and hashes of the decoded `images`, which are `rows` of the table."""
    digests = bytes_of(packed(table["pixel_sha256"].take(rows), 32))
    words = {
        name: bytes_of(packed(table[name].take(rows), BITS[name] // 8)).view(">u8").astype(np.uint64) for name in hashes
    }
    return Identity(images, digests, words)


def _pixels(column: pa.ChunkedArray, rows: pa.Array, images: Rows, width: int, count: int) -> NDArray[np.uint8]:
    """Bytes of all images, [count, width]: of the decoded ones as for :func:`_identity`, zeros of the others."""
    values = np.zeros((count, width), dtype=np.uint8)
    values[images] = bytes_of(column.take(rows).cast(pa.binary(width)))
    return values
