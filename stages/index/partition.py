"""One partition of a source as the index reads it: its pairs, attempts and signals, joined."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stages.base.artifact import Artifact
from stages.base.contract import UserError
from stages.imaging.perceptual_hash import BITS, THUMBNAIL_BYTES
from stages.index.config import Hash
from stages.index.schema import IMAGES, PAIRS
from stages.index.texts import Phrases, overlaps

#: Scheme, user and password, then the host: all that a URL without surprises has before its path.
_HOST = r"^[a-zA-Z][a-zA-Z0-9+.\-]*://(?:[^/?#@]*@)?(?P<host>\[[^\]/?#]*\]|[^/?#:]*)"


@dataclass(frozen=True)
class PartitionInputs:
    """The artifacts that hold one partition of a source."""

    source: int
    """Number of the source."""
    name: str
    """Name of the source."""
    private: bool
    number: str
    """The digits in the files' names."""
    pairs: Artifact
    raw: Artifact
    signals: Artifact


@dataclass(frozen=True)
class JoinedPartition:
    """Rows as in `stages/index/schema.py`, before those of all partitions are concatenated."""

    images: pa.Table
    """Without `group`; with `pixel_sha256` and the hashes searched by as fixed-size binary, and `thumbnail`; these are
    zero where the image was not decoded."""
    pairs: pa.Table
    """`image` counts within the partition."""
    texts: pa.Table
    """As `benchmark-texts.arrow`; `pair` counts within the partition."""


def read(inputs: PartitionInputs, hashes: Sequence[Hash], phrases: Phrases) -> JoinedPartition:
    """Join the tables of one partition. Raises UserError where they disagree, or lack a hash that is needed."""
    number = f"{inputs.number}.parquet"
    listed = _table(inputs.pairs, f"pairs-{number}", "ingest", ["uid", "image_uid", "url", "caption"])
    tried = _table(inputs.raw, f"attempts-{number}", "download", ["image_uid", "status", "offset", "length"])
    measured = _table(inputs.signals, f"images-{number}", "signals")
    texts = _table(inputs.signals, f"pairs-{number}", "signals")
    image_of = _position(listed["image_uid"], tried["image_uid"])
    _refuse(listed["image_uid"], pc.is_null(image_of), inputs, "image {} was never tried", "download")
    row = _position(tried["image_uid"], measured["image_uid"])
    fetched = pc.equal(tried["status"], "success")
    unmeasured = pc.and_(fetched, pc.is_null(row))
    _refuse(tried["image_uid"], unmeasured, inputs, "image {} was fetched but not measured", "signals")
    caption = _position(listed["uid"], texts["uid"])
    silent = pc.and_(pc.is_null(caption), pc.take(fetched, image_of))
    _refuse(listed["uid"], silent, inputs, "the caption of {} was not measured", "signals")
    measured_of_image = measured.take(row)
    images = {
        "image_uid": tried["image_uid"],
        "source": _constant(inputs.source, tried.num_rows, pa.int16()),
        "status": tried["status"],
        "host": _hosts(tried["image_uid"], listed, inputs.private),
        "shard": pc.if_else(fetched, pa.scalar(int(inputs.number), pa.int32()), pa.scalar(None, pa.int32())),
        "offset": tried["offset"],
        "length": tried["length"],
        "decoded": measured_of_image["decoded"],
        **_scalars(measured_of_image, {"image_uid", "source", "decoded"}, {*IMAGES.names, "thumbnail"}, inputs),
        **_identity(measured_of_image, hashes, inputs),
    }
    pairs = {
        "uid": listed["uid"],
        "image": image_of,
        "source": _constant(inputs.source, listed.num_rows, pa.int16()),
        "measured": pc.is_valid(caption),
        **_scalars(texts.take(caption), {"uid", "image_uid", "source"}, set(PAIRS.names), inputs),
    }
    return JoinedPartition(pa.table(images), pa.table(pairs), overlaps(listed["caption"], phrases))


def _table(artifact: Artifact, name: str, stage: str, columns: list[str] | None = None) -> pa.Table:
    """One parquet file of an artifact, each column in one piece."""
    try:
        with artifact.open(name) as file:
            return pq.read_table(file, columns=columns).combine_chunks()
    except FileNotFoundError:
        raise UserError(f"index: {stage} made no {name}, though ingest did; run `pairmill run {stage}` again") from None


def _position(keys: pa.ChunkedArray, among: pa.ChunkedArray) -> pa.Array:
    """Row of each key, int32; null where it is not there."""
    return _whole(pc.index_in(keys, value_set=_whole(among)))


def _whole(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _refuse(uids: pa.ChunkedArray, wrong: Any, inputs: PartitionInputs, message: str, stage: str) -> None:
    wrong_uids = uids.filter(pc.fill_null(wrong, False))
    if len(wrong_uids):
        problem = message.format(wrong_uids[0].as_py())
        raise UserError(f"index: {problem} (source {inputs.name}); run `pairmill run {stage}` again")


def _constant(value: int, count: int, kind: pa.DataType) -> pa.Array:
    return pa.repeat(pa.scalar(value, kind), count)


def _hosts(uids: pa.ChunkedArray, listed: pa.Table, private: bool) -> pa.Array:
    """Host of each image's URL, lower-case; null for local files and private sources."""
    if private:
        return pa.nulls(len(uids), pa.string())
    urls = listed["url"].take(_position(uids, listed["image_uid"]))
    host = pc.struct_field(pc.extract_regex(pc.utf8_trim_whitespace(urls), _HOST), "host")
    host = _whole(pc.utf8_trim(pc.utf8_rtrim(pc.utf8_lower(host), "."), "[]"))
    return pc.if_else(pc.equal(host, ""), pa.scalar(None, pa.string()), host)


def _scalars(
    table: pa.Table, left_out: Collection[str], taken: Collection[str], inputs: PartitionInputs
) -> dict[str, Any]:
    """The measured columns with one value per row, but the hashes."""
    columns = {}
    for field in table.schema:
        kind = field.type
        if field.name in left_out or field.name == "pixel_sha256" or field.name.startswith("phash"):
            continue
        if pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_fixed_size_binary(kind):
            continue
        if field.name in taken:
            raise UserError(f"index: signals of source {inputs.name} call a column {field.name!r}, a name of the index")
        columns[field.name] = table[field.name]
    return columns


def _identity(table: pa.Table, hashes: Sequence[Hash], inputs: PartitionInputs) -> dict[str, pa.Array]:
    """Digest, hashes and thumbnail of each image as fixed-size binary."""
    digits: dict[str, int] = {"pixel_sha256": 64}
    digits.update({name: BITS[name] // 4 for name in hashes})
    for name in [*digits, "thumbnail"]:
        if name not in table.column_names:
            raise UserError(
                f"index: the images of source {inputs.name} have no {name}; add the family `hashes` to signals.families"
            )
    columns = {}
    for name, length in digits.items():
        packed = bytes.fromhex("".join(pc.fill_null(table[name], "0" * length).to_pylist()))
        columns[name] = _packed(packed, length // 2, table.num_rows)
    thumbnails = b"".join(pc.fill_null(table["thumbnail"].cast(pa.binary()), bytes(THUMBNAIL_BYTES)).to_pylist())
    columns["thumbnail"] = _packed(thumbnails, THUMBNAIL_BYTES, table.num_rows)
    return columns


def _packed(data: bytes, width: int, rows: int) -> pa.Array:
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), rows, [None, pa.py_buffer(data)])
