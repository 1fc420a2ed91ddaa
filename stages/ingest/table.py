"""Tables of pairs in common formats: CSV and TSV with a header, JSON lines, parquet; of URLs or of local files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from stages.ingest.columns import Choice, Roles
from stages.ingest.config import SourceConfig, TextListConfig
from stages.ingest.delimited import Records
from stages.ingest.files import COMPRESSED, BadFile, InputFile
from stages.ingest.parquet import read_parquet, row_group_runs
from stages.ingest.source import Columns, Item, Pair, Reject, Source, Unit, checked_digest
from stages.ingest.text_files import lines, ranges

Format = Literal["csv", "tsv", "jsonl", "parquet"]
_ENDINGS: dict[str, Format] = {
    "csv": "csv",
    "tsv": "tsv",
    "tab": "tsv",
    "jsonl": "jsonl",
    "ndjson": "jsonl",
    "parquet": "parquet",
}
_DELIMITERS = (",", ";", "\t", "|")
_PREVIEWED = 1_000  # JSON lines read to determine the columns


class TableConfig(TextListConfig):
    """`kind: table`. With `images` set, a column names files below that folder; without, a column holds URLs."""

    format: Format | None = None
    """null goes by each file's ending (`.csv`, `.tsv`, `.jsonl`, `.ndjson`, `.parquet`, and these with `.gz`, `.bz2`,
    `.xz`, `.zst` behind)."""
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    """One character between the fields of a text table; null is a comma for CSV and a tab for TSV, unless the header
    has the columns that are needed with one other of comma, semicolon, tab and `|` only."""
    quoting: bool | None = None
    """Whether a field may be enclosed in quotation marks (and then hold delimiters, line ends and doubled quotation
    marks); null is yes for CSV and no for TSV, where they are characters like any other."""
    caption_column: str | None = None
    """null finds `TEXT`, `text`, `CAPTION` or `caption`."""
    url_column: str | None = None
    """null finds `URL`, `url`, `image_url` or `coco_url`."""
    path_column: str | None = None
    """null finds `path`, `file`, `file_name`, `filename`, `image_path` or `image`; read where `images` is set."""
    license_column: str | None = None
    """null finds `LICENSE` or `license`."""
    sha256_column: str | None = "sha256"
    """Column with the hex digest of the image file, which the download checks; null checks none."""
    md5_column: str | None = "md5"
    """The same for md5."""


class Table(Source[TableConfig]):
    """All columns that have no role are kept under `meta`: text as text, JSON as it is."""

    Config: ClassVar[type[SourceConfig]] = TableConfig

    def splits(self, files: Sequence[InputFile]) -> list[Unit]:
        """Runs of row groups, ranges of lines; a text table with quoting stays whole, since only reading it from its
        start determines what is inside quotation marks."""
        units: list[Unit] = []
        for file in files:
            format = self._format(file)
            if format == "parquet":
                units += row_group_runs([file], self.settings.rows_per_partition)
            elif format == "jsonl" or (format is not None and not self._quoting(format)):
                units += ranges([file], self.settings.bytes_per_partition, encoding=self.config.encoding)
            else:
                units.append(Unit((file,)))
        return units

    def read(self, unit: Unit) -> Iterator[Item]:
        """One item per row (of text tables: per record, the header not counted)."""
        (file,) = unit.files
        readers: dict[Format | None, Callable[[Unit, Choice], Iterator[Item]]] = {
            "parquet": read_parquet,
            "jsonl": self._read_jsonl,
            "csv": self._read_delimited,
            "tsv": self._read_delimited,
        }
        format = self._format(file)
        if format is None:
            detail = f"its ending is none of {', '.join(_ENDINGS)}: set sources.{self.name}.format"
            raise BadFile(file, "unknown_format", detail)
        yield from readers[format](unit, self._choice())

    def _format(self, file: InputFile) -> Format | None:
        if self.config.format is not None:
            return self.config.format
        parts = file.name.lower().rsplit("/", 1)[-1].split(".")
        if f".{parts[-1]}" in COMPRESSED:
            parts.pop()
        return _ENDINGS.get(parts[-1])

    def _quoting(self, format: Format) -> bool:
        return format == "csv" if self.config.quoting is None else self.config.quoting

    def _choice(self) -> Choice:
        c = self.config
        return Choice(
            self,
            c.url_column,
            c.path_column,
            c.caption_column,
            "caption_column",
            c.license_column,
            c.sha256_column,
            c.md5_column,
        )

    def _read_delimited(self, unit: Unit, choice: Choice) -> Iterator[Item]:
        (file,) = unit.files
        format = self._format(file) or "csv"
        quoting, encoding = self._quoting(format), self.config.encoding
        delimiter, names = self._header(file, {"tsv": "\t"}.get(format, ","), quoting, choice)
        records = Records(lines(unit, encoding), delimiter, quoting)
        if unit.start == 0:
            next(records)  # the header
        if unit.start == 0:
            yield Columns(file, dict.fromkeys(names, "string"), choice.ignored(names))
        roles = choice.of(file, names)
        for record in records:
            if isinstance(record, str):
                yield Reject(file, record)
            elif len(record) != len(names):
                yield Reject(file, "blank_line" if record in ([""], []) else "ragged_row")
            else:
                yield from _row(file, record, choice, roles)

    def _header(self, file: InputFile, usual: str, quoting: bool, choice: Choice) -> tuple[str, list[str]]:
        """The delimiter and the columns of a text table: also of a range inside the file its first line names them."""
        usual = self.config.delimiter or usual
        names = self._columns(file, usual, quoting)
        if self.config.delimiter is None and not choice.complete(names):
            others = {mark: self._columns(file, mark, quoting) for mark in _DELIMITERS if mark != usual}
            complete = [mark for mark, columns in others.items() if choice.complete(columns)]
            # One column may be the whole line; which delimiter it has is then worth saying, too.
            several = [mark for mark, columns in others.items() if len(names) < 2 <= len(columns)]
            for candidates in (complete, several):
                if len(candidates) == 1:
                    return candidates[0], others[candidates[0]]
        if not names:
            raise BadFile(file, "no_header", "its first line does not name columns")
        return usual, names

    def _columns(self, file: InputFile, delimiter: str, quoting: bool) -> list[str]:
        """Names in a table's first line; empty if it is no header."""
        header = next(Records(lines(Unit((file,)), self.config.encoding), delimiter, quoting), None)
        return [name.strip() for name in header] if isinstance(header, list) and any(header) else []

    def _read_jsonl(self, unit: Unit, choice: Choice) -> Iterator[Item]:
        (file,) = unit.files
        columns: dict[str, str] = {}
        seen = 0
        for line in lines(unit, self.config.encoding):
            row = _parsed(line)
            if isinstance(row, str):
                yield Reject(file, row)
                continue
            if unit.start == 0 and seen < _PREVIEWED:
                seen += 1
                for name, value in row.items():
                    columns.setdefault(name, type(value).__name__)
            yield from _object(file, row, choice)
        if unit.start == 0:
            yield Columns(file, columns, choice.ignored(list(columns)))


def _row(file: InputFile, record: Sequence[str], choice: Choice, roles: Roles) -> Iterator[Pair | Reject]:
    license = None if roles.license is None else record[roles.license]
    meta: dict[str, Any] = {name: record[position] for name, position in roles.others.items()}
    meta.update(_checked({kind: record[position] for kind, position in roles.digests.items()}))
    caption = None if roles.caption is None else record[roles.caption]
    return choice.items(file, record[roles.place], caption, license, meta)


def _checked(listed: Mapping[str, Any]) -> dict[str, str]:
    digests = {kind: checked_digest(kind, value) for kind, value in listed.items()}
    return {kind: digest for kind, digest in digests.items() if digest is not None}


def _parsed(line: bytes | None) -> dict[str, Any] | str:
    """One line's object, or the reason why there is none."""
    if line is None:
        return "line_too_long"
    if not line or line.isspace():
        return "blank_line"
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError:
        return "not_utf8"
    try:
        row = json.loads(text)
    except (ValueError, RecursionError):  # bad JSON, a number of 5,000 digits, a deep nest
        return "not_json"
    return row if isinstance(row, dict) else "not_an_object"


def _object(file: InputFile, row: dict[str, Any], choice: Choice) -> Iterator[Pair | Reject]:
    """A JSON line as a pair or several: keys may differ from line to line, so roles are determined anew."""
    place, caption, license = choice.take(row)
    digests = {kind: row.pop(name, None) for kind, name in choice.digests().items()}
    return choice.items(file, place, caption, license, {**row, **_checked(digests)})
