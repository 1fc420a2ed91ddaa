"""The tables of one partition: from a raw shard and its pairs to the rows of measurements."""

from __future__ import annotations

from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stages.signals.measure import Measurer


class ShardError(Exception):
    """A raw shard and its table of attempts disagree."""


def fetched(attempts: Path) -> pa.Table:
    """Rows of the attempts that brought an image, with what is needed to read it."""
    columns = ["image_uid", "source", "bytes", "format", "sha256", "offset", "length"]
    return pq.read_table(attempts, columns=columns, filters=pc.field("status") == "success")


def images(attempts: pa.Table, shard: IO[bytes], measurer: Measurer) -> pa.Table:
    """One row per fetched image, sorted by `image_uid`. Raises ShardError when the shard is shorter than it says."""
    rows = []
    for row in attempts.to_pylist():
        shard.seek(row.pop("offset"))
        length = row.pop("length")
        data = shard.read(length)
        if len(data) != length:
            raise ShardError(f"image {row['image_uid']} lies beyond the end")
        rows.append({**row, **measurer.image(data)})
    rows.sort(key=lambda row: row["image_uid"])
    return pa.Table.from_pylist(rows, measurer.image_schema)


def pairs(file: Path, measured: pa.Table, measurer: Measurer) -> pa.Table:
    """One row per pair of the measured images, sorted by `uid`."""
    table = pq.read_table(file, columns=["uid", "image_uid", "source", "caption", "meta"])
    table = table.filter(pc.is_in(table["image_uid"], value_set=measured["image_uid"].combine_chunks()))
    rows = []
    for row in table.sort_by("uid").to_pylist():
        caption, meta = row.pop("caption"), row.pop("meta")
        rows.append({**row, **measurer.pair(caption, meta)})
    return pa.Table.from_pylist(rows, measurer.pair_schema)


def write(table: pa.Table, file: Path) -> None:
    """Write parquet with settings that do not depend on the machine."""
    pq.write_table(table, file, compression="zstd", row_group_size=65_536)
