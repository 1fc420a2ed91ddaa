"""Parquet lists: runs of row groups, and rows as pairs with every other column kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, Any

from stages.ingest.columns import Choice, Roles
from stages.ingest.files import BadFile, InputFile, damage
from stages.ingest.source import Columns, Item, Unit, checked_digest

if TYPE_CHECKING:
    import pyarrow as pa

_BATCH_ROWS = 8192
_FOOTERS_AT_ONCE = 8


def row_group_runs(files: Sequence[InputFile], rows_per_unit: int) -> list[Unit]:
    """Runs of whole row groups, `rows_per_unit` rows or a few more each; a damaged file stays whole."""
    with ThreadPoolExecutor(_FOOTERS_AT_ONCE) as pool:
        groups = list(pool.map(_group_rows, files))
    units = []
    for file, sizes in zip(files, groups, strict=True):
        if not sizes:
            units.append(Unit((file,)))
            continue
        start = rows = 0
        for group, size in enumerate(sizes):
            rows += size
            if rows >= rows_per_unit or group == len(sizes) - 1:
                units.append(Unit((file,), start, group + 1))
                start, rows = group + 1, 0
    return units


def _group_rows(file: InputFile) -> list[int]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with file.open() as handle:
            footer = pq.read_metadata(handle)
            return [footer.row_group(group).num_rows for group in range(footer.num_row_groups)]
    except (OSError, pa.ArrowException) as error:
        if damage(error, file) is None:
            raise
        return []


def read_parquet(unit: Unit, choice: Choice) -> Iterator[Item]:
    """One item per row. Raises BadFile when the columns are not there, or hold no text."""
    import pyarrow.parquet as pq

    (file,) = unit.files
    with file.open() as handle:
        parquet = pq.ParquetFile(handle)
        schema = parquet.schema_arrow
        if unit.start == 0:
            columns = {field.name: str(field.type) for field in schema}
            yield Columns(file, columns, choice.ignored(schema.names))
        roles = choice.of(file, schema.names)
        _require_text(file, schema.field(roles.place))
        if roles.caption is not None:
            _require_captions(file, schema.field(roles.caption), choice)
        end = parquet.num_row_groups if unit.end is None else unit.end
        groups = list(range(unit.start, min(end, parquet.num_row_groups)))
        for batch in parquet.iter_batches(_BATCH_ROWS, row_groups=groups, use_threads=False):
            yield from _rows(file, batch, choice, roles)


def _require_text(file: InputFile, field: pa.Field) -> None:
    from stages.ingest.values import is_text

    if not is_text(field.type):
        raise BadFile(file, "column_not_text", f"column {field.name} holds {field.type}, not text")


def _require_captions(file: InputFile, field: pa.Field, choice: Choice) -> None:
    from stages.ingest.values import is_list, is_text

    listed = is_list(field.type) and is_text(field.type.value_type)
    if choice.each and listed:
        return
    key = f"sources.{choice.source.name}.captions"
    if listed:
        raise BadFile(
            file, "column_not_text", f"column {field.name} holds lists of captions: set {key}=each for a pair of each"
        )
    _require_text(file, field)


def _rows(file: InputFile, batch: pa.RecordBatch, choice: Choice, roles: Roles) -> Iterator[Item]:
    from stages.ingest.values import json_objects, plain, texts

    meta = {name: batch.column(position) for name, position in roles.others.items()}
    for kind, position in roles.digests.items():
        meta[kind] = _digests(kind, batch.column(position))
    objects = json_objects(meta, batch.num_rows)
    licenses: list[object] = [None] * batch.num_rows
    if roles.license is not None:
        licenses = [None if value is None else plain(value) for value in batch.column(roles.license).to_pylist()]
    places, captions = texts(batch.column(roles.place)), [None] * batch.num_rows
    if roles.caption is not None:
        captions = _captions(batch.column(roles.caption))
    for place, caption, license, facts in zip(places, captions, licenses, objects, strict=True):
        yield from choice.items(file, place, caption, license, facts)


def _captions(column: pa.Array) -> list[Any]:
    """Texts, or lists of texts, of a column of captions."""
    from stages.ingest.values import is_list, texts

    if not is_list(column.type):
        return texts(column)
    flat = iter(texts(column.flatten()))
    lengths = column.value_lengths().to_pylist()
    return [None if length is None else list(islice(flat, length)) for length in lengths]


def _digests(kind: str, column: pa.Array) -> pa.Array:
    import pyarrow as pa

    from stages.ingest.values import is_text, texts

    values = texts(column) if is_text(column.type) else [None] * len(column)
    return pa.array([checked_digest(kind, value) for value in values], pa.large_string())
