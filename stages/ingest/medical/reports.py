"""Reports of studies: a CSV file, or one text file per study; of each only the sections that describe the picture."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

import regex

from stages.contract import UserError
from stages.ingest.files import InputFile

#: A heading at the start of a line: words in capitals (or a known one in any case) before a colon.
_HEADING = regex.compile(
    r"^[ \t]*(?P<name>\p{Lu}[\p{Lu} /&()-]{2,40}|(?i:findings?|impressions?|conclusions?|indication|history|technique"
    r"|comparison|exam(?:ination)?|recommendations?|signed|dictated|addendum))[ \t]*:",
    regex.MULTILINE,
)


def read_reports(files: Sequence[InputFile], study_column: str, report_column: str) -> dict[str, str]:
    """Report text by study key.

    A `.csv` file gives one report per row; its columns `findings` and `impression` are used when it has no
    `report_column`. Any other file is one report, its key the file's name without extension.
    Raises UserError when a CSV lacks the columns.
    """
    reports: dict[str, str] = {}
    for file in files:
        with file.open() as handle:
            text = handle.read().decode("utf-8-sig", "replace")
        if file.name.lower().endswith(".csv"):
            reports.update(_rows(file, text, study_column, report_column))
        else:
            reports[file.name.rsplit("/", 1)[-1].rsplit(".", 1)[0]] = text
    return reports


def _rows(file: InputFile, text: str, study_column: str, report_column: str) -> dict[str, str]:
    rows = csv.DictReader(io.StringIO(text, newline=""))
    columns = list(rows.fieldnames or [])
    parts = [name for name in ("findings", "impression") if name in columns]
    if study_column not in columns or (report_column not in columns and not parts):
        raise UserError(
            f"{file.name.rsplit('/', 1)[-1]}: needs a column {study_column!r}, and {report_column!r} or findings and"
            f" impression (it has {', '.join(columns)}); set study_column and report_column"
        )
    found = {}
    for row in rows:
        if report_column in columns:
            report = row[report_column] or ""
        else:
            report = "\n".join(f"{name.upper()}: {row[name]}" for name in parts if row[name])
        found[(row[study_column] or "").strip()] = report
    return found


def sections(report: str, wanted: Sequence[str]) -> str:
    """The named sections of a report, in the order asked for; empty when it has none of them.

    With nothing wanted the whole report. Headings are compared without case and plural.
    """
    if not wanted:
        return report
    headings = list(_HEADING.finditer(report))
    ends = [heading.start() for heading in headings[1:]] + [len(report)]
    found: dict[str, str] = {}
    for heading, end in zip(headings, ends, strict=True):
        name = _singular(heading["name"])
        found[name] = f"{found.get(name, '')} {report[heading.end() : end].strip()}".strip()
    return " ".join(text for name in wanted if (text := found.get(_singular(name))))


def _singular(name: str) -> str:
    return name.strip().lower().removesuffix("s")
