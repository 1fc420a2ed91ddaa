"""Reads and writes the tables of one partition: attempts and pairs in, measured columns out."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stages.signals.family import Family, Row


def read_fetched(attempts: Path) -> pa.Table:
    """Rows of the successful attempts, sorted by `image_uid`, with the columns needed to read the images."""
    columns = ["image_uid", "source", "bytes", "format", "sha256", "offset", "length"]
    table = pq.read_table(attempts, columns=columns, filters=pc.field("status") == "success")
    return table.sort_by("image_uid")


def read_pairs(file: Path, attempts: pa.Table) -> pa.Table:
    """The pairs of the fetched images, sorted by `uid`."""
    table = pq.read_table(file, columns=["uid", "image_uid", "source", "caption", "meta"])
    return table.filter(pc.is_in(table["image_uid"], value_set=attempts["image_uid"].combine_chunks())).sort_by("uid")


def arrow_type(name: str) -> pa.DataType:
    """The Arrow type of a column as :attr:`Family.columns` names it. Raises ValueError for an unknown name."""
    if inner := re.fullmatch(r"list<(.+)>", name):
        # Parquet's own name for list items, so that a table is unchanged by writing and reading it.
        return pa.list_(pa.field("element", arrow_type(inner[1])))
    if length := re.fullmatch(r"binary\[(\d+)\]", name):
        return pa.binary(int(length[1]))
    return pa.type_for_alias(name)


def schema(family: Family[Any]) -> pa.Schema:
    """The columns of one family."""
    return pa.schema([pa.field(name, arrow_type(kind)) for name, kind in family.columns.items()])


def columns(family: Family[Any], rows: Sequence[Row]) -> pa.Table:
    """The table of one family's rows, null where a row is empty."""
    return pa.Table.from_pylist([dict(row) for row in rows], schema(family))


def joined(
    base: pa.Table, families: Sequence[Family[Any]], results: Mapping[str, pa.Table], table: Literal["images", "pairs"]
) -> pa.Table:
    """`base` (attempts or pairs) and the columns of all families that belong to that table."""
    kept = ("image_uid", "source", "bytes", "format", "sha256") if table == "images" else ("uid", "image_uid", "source")
    whole = base.select(list(kept)).cast(pa.schema([pa.field(name, base.schema.field(name).type) for name in kept]))
    if table == "images":
        # Images that were fetched but do not decode keep their row.
        whole = whole.append_column("decoded", pc.is_valid(results["size"]["width"]))
    for family in families:
        if family.table == table:
            for field in results[family.name].schema:
                whole = whole.append_column(field, results[family.name][field.name])
    return whole.replace_schema_metadata(None).combine_chunks()


def write(table: pa.Table, file: Path) -> None:
    """Write parquet with settings that do not depend on the machine."""
    pq.write_table(table, file, compression="zstd", row_group_size=65_536)
