"""LAION's parquet lists, and others of the same shape: a URL column, a text column, and anything else."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from stages.contract import UserError
from stages.ingest.config import SourceConfig
from stages.ingest.files import InputFile
from stages.ingest.source import Pair, Reject, Source, Unit

if TYPE_CHECKING:
    import pyarrow as pa

#: Spellings of the releases: LAION-400M and -5B (URL, TEXT), re-uploads and DataComp (url, text or caption).
URL_COLUMNS = ("URL", "url")
TEXT_COLUMNS = ("TEXT", "text", "CAPTION", "caption")
LICENSE_COLUMNS = ("LICENSE", "license")


class LaionConfig(SourceConfig):
    """`kind: laion`."""

    url_column: str | None = None
    """Column of image URLs; null finds `URL` or `url`."""
    text_column: str | None = None
    """Column of captions; null finds `TEXT`, `text`, `CAPTION` or `caption`."""


class Laion(Source[LaionConfig]):
    """Everything beside URL, text and license is kept under `meta`, null where the list has NaN.

    Sizes stay there too: some releases have WIDTH and HEIGHT swapped, so only the image itself is believed.
    """

    Config: ClassVar[type[SourceConfig]] = LaionConfig

    def splits(self, files: Sequence[InputFile]) -> list[Unit]:
        """Runs of whole row groups, `rows_per_partition` rows or a few more each."""
        import pyarrow.parquet as pq

        units = []
        for file in files:
            with file.open() as handle:
                footer = pq.read_metadata(handle)
            start = rows = 0
            for group in range(footer.num_row_groups):
                rows += footer.row_group(group).num_rows
                if rows >= self.settings.rows_per_partition or group == footer.num_row_groups - 1:
                    units.append(Unit((file,), start, group + 1))
                    start, rows = group + 1, 0
        return units

    def read(self, unit: Unit) -> Iterator[Pair | Reject]:
        """One item per row. Raises UserError when the file has no URL or text column."""
        import pyarrow.parquet as pq

        (file,) = unit.files
        with file.open() as handle:
            parquet = pq.ParquetFile(handle)
            names = parquet.schema_arrow.names
            url_column = self._column(file, names, self.config.url_column, URL_COLUMNS, "url_column")
            text_column = self._column(file, names, self.config.text_column, TEXT_COLUMNS, "text_column")
            license_column = next((name for name in LICENSE_COLUMNS if name in names), None)
            groups = list(range(unit.start, unit.end or parquet.num_row_groups))
            for batch in parquet.iter_batches(batch_size=8192, row_groups=groups):
                columns = {name: _values(batch.column(name)) for name in names}
                urls, texts = columns.pop(url_column), columns.pop(text_column)
                licenses = columns.pop(license_column) if license_column else [None] * len(urls)
                for row, (url, text, license) in enumerate(zip(urls, texts, licenses, strict=True)):
                    if isinstance(url, bytes) or isinstance(text, bytes):
                        yield Reject(file, "not_utf8")
                        continue
                    meta = {name: _plain(values[row]) for name, values in columns.items()}
                    yield Pair(file, text or "", url=url or "", license=_plain(license), meta=meta)

    def _column(self, file: InputFile, names: Sequence[str], chosen: str | None, usual: Sequence[str], key: str) -> str:
        wanted = [chosen] if chosen else usual
        for name in wanted:
            if name in names:
                return name
        raise UserError(
            f"sources.{self.name}: {file.name} has no column {' or '.join(wanted)} (it has {', '.join(names)}):"
            f" set sources.{self.name}.{key}"
        )


def _values(column: pa.Array) -> list[Any]:
    """Python values; a string that is not UTF-8 comes back as bytes, so that one bad row costs one row."""
    import pyarrow as pa

    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return column.to_pylist()
    try:
        return column.to_pylist()
    except UnicodeDecodeError:
        return [_decoded(value) for value in column.cast(pa.large_binary()).to_pylist()]


def _decoded(value: bytes | None) -> str | bytes | None:
    try:
        return None if value is None else value.decode("utf-8")
    except UnicodeDecodeError:
        return value


def _plain(value: Any) -> Any:
    """As JSON has it: NaN is null, bytes are their readable part, dates are ISO text."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return str(value)
