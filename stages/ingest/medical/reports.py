"""Reports of studies, from lists or one text file each, and the sections of a report that describe the image."""

from __future__ import annotations

import csv
import io
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import regex

from stages.base.contract import UserError
from stages.ingest.files import InputFile
from stages.ingest.medical.dicom import Unusable

#: A heading at the start of a line: words in capitals (or a known one in any case) before a colon; or a known one in
#: capitals on a line of its own.
_HEADING = regex.compile(
    r"^[ \t]*(?:(?P<name>\p{Lu}[\p{Lu} /&()-]{2,40}|(?i:(?:final\s+)?findings?|(?:final\s+)?impressions?"
    r"|conclusions?|indications?|history|technique"
    r"|comparisons?|exam(?:ination)?|recommendations?|procedure|notifications?|reason(?:\s+for\s+exam\w*)?"
    r"|clinical\s+(?:history|information|indication)"
    r"|views?|summary|signed|dictated|electronically\s+signed(?:\s+by)?|attending|addendum))[ \t]*:"
    r"|(?P<name>(?:FINDINGS?|IMPRESSIONS?|CONCLUSIONS?|INDICATION|HISTORY|TECHNIQUE|COMPARISON|SUMMARY))[ \t]*$)",
    regex.MULTILINE,
)
_LISTS = (".csv", ".json", ".jsonl")
#: Files beside the reports that are not reports.
_NOT_REPORTS = (".dcm", ".dicom", ".ima", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".html", ".zip")

Parts = tuple[str, ...]


@dataclass(frozen=True)
class _Entry:
    parts: Parts
    """Folders and name that identify the report."""
    text: str | InputFile
    """A text file is read on demand: a partition needs few of them."""

    def read(self) -> str:
        return self.text if isinstance(self.text, str) else _text(self.text)


class Reports:
    """Reports by key, or by their location in a tree of folders."""

    def __init__(self, files: Sequence[InputFile], study_column: str, report_column: str, source: str) -> None:
        """`.csv`, `.json` and `.jsonl` files list reports; without `report_column` their columns `findings` and
        `impression` are used. Any other file is one report, identified by its name without extension, or by its
        folder if it is the only one there. Raises UserError for a list that is damaged or lacks the columns; the
        message gives the config key `source` and the file's number, because file names and lines may identify a
        patient."""
        self._named: dict[str, list[_Entry]] = defaultdict(list)
        self._folders: dict[str, list[_Entry]] = defaultdict(list)
        for number, file in enumerate(files, 1):
            name = file.name.lower().removesuffix(".gz")
            if name.endswith(_LISTS):
                for key, report in _listed(file, study_column, report_column, f"{source}.reports, file {number}"):
                    parts = tuple(part for part in key.strip().replace("\\", "/").split("/") if part not in ("", "."))
                    if parts:
                        self._named[parts[-1]].append(_Entry(parts, report))
            elif not name.endswith(_NOT_REPORTS):
                folders, base = folders_of(file)
                stem = base.rsplit(".", 1)[0]
                self._named[stem].append(_Entry((*folders, stem), file))
                if folders:
                    self._folders[folders[-1]].append(_Entry(folders, file))

    def by_key(self, key: Parts) -> str | None:
        """The report of a key; for a path the one with the longest common end. Raises Unusable if two differ."""
        return _nearest(self._named.get(key[-1], []), key)

    def by_folder(self, folders: Parts) -> str | None:
        """The report named after an image's folder or a parent of it, nearest first; else the only one in its folder.

        Raises Unusable if there are several.
        """
        own = _nearest(self._folders.get(folders[-1], []), folders) if folders else None
        around = (self.by_key(folders[:depth]) for depth in range(len(folders), 0, -1))
        return next((report for report in around if report is not None), own)


def folders_of(file: InputFile) -> tuple[Parts, str]:
    """(folders, name) of a file, from its whole path: a source may be configured with a study's folder alone."""
    *folders, base = file.url.split("/")
    return tuple(folder for folder in folders if folder and not folder.endswith(":")), base


def _nearest(entries: Sequence[_Entry], key: Parts) -> str | None:
    """The text of the entry that shares the longest end with `key`; None if none shares any."""
    shared = {entry.parts: _common_suffix_length(entry.parts, key) for entry in entries}
    best = max(shared.values(), default=0)
    texts = {entry.read() for entry in entries if best and shared[entry.parts] == best}
    if len(texts) > 1:
        raise Unusable("ambiguous_report")
    return next(iter(texts), None)


def _common_suffix_length(first: Parts, second: Parts) -> int:
    count = 0
    for one, other in zip(reversed(first), reversed(second), strict=False):
        if one != other:
            break
        count += 1
    return count


def _listed(file: InputFile, study_column: str, report_column: str, where: str) -> Iterator[tuple[str, str]]:
    """(key, report) of every row."""
    listing = file.name.lower().removesuffix(".gz")
    columns, records = _csv_rows(file, where) if listing.endswith(".csv") else _json_rows(file, where)
    parts = [name for section in ("findings", "impression") for name in columns if name.strip().lower() == section]
    if study_column not in columns or (report_column not in columns and not parts):
        raise UserError(
            f"{where}: needs a column {study_column!r}, and {report_column!r} or findings and impression, among its"
            f" {len(columns)}; set study_column and report_column to its own, or give it a first line of names"
        )
    for row in records:
        if report_column in columns:
            report = str(row.get(report_column) or "")
        else:
            report = "\n".join(f"{name.strip().upper()}: {row[name]}" for name in parts if row.get(name))
        yield str(row.get(study_column) or ""), report


def _csv_rows(file: InputFile, where: str) -> tuple[list[str], Iterator[dict[str, Any]]]:
    rows = csv.DictReader(io.StringIO(_text(file), newline=""))
    csv.field_size_limit(1 << 24)  # characters of one report, should a quote be missing
    try:
        columns = list(rows.fieldnames or [])
        return columns, iter(list(rows))
    except csv.Error as error:
        raise UserError(f"{where}, line {rows.line_num}: no CSV ({error}); mend its quotes") from None


def _json_rows(file: InputFile, where: str) -> tuple[list[str], Iterator[dict[str, Any]]]:
    text = _text(file)
    try:
        if file.name.lower().removesuffix(".gz").endswith(".jsonl"):
            rows = [json.loads(line) for line in text.splitlines() if line.strip()]
        else:
            rows = json.loads(text)
    except ValueError as error:
        line = f"line {error.lineno}" if isinstance(error, json.JSONDecodeError) else "it"
        raise UserError(f"{where}: {line} is no JSON; mend it or leave it out of reports") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UserError(f"{where}: needs a JSON list of objects, one per report")
    return sorted({str(key) for row in rows for key in row}), iter(rows)


def _text(file: InputFile) -> str:
    """A file's text: UTF-8, UTF-16 with a byte order mark, or else Windows-1252, so that no letter is lost."""
    with file.open_text() as handle:
        content = handle.read()
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return content.decode("utf-16", "replace")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252", "replace")


def sections(report: str, names: Sequence[str]) -> str:
    """The named sections of a report, in the order of `names`; empty if it has none of them.

    Without names the whole report. Headings are compared without case and plural, and without "final".
    """
    if not names:
        return report
    headings = list(_HEADING.finditer(report))
    ends = [heading.start() for heading in headings[1:]] + [len(report)]
    texts: dict[str, str] = {}
    for heading, end in zip(headings, ends, strict=True):
        name = _singular(heading["name"])
        texts[name] = f"{texts.get(name, '')} {report[heading.end() : end].strip()}".strip()
    return " ".join(text for name in names if (text := texts.get(_singular(name))))


def _singular(name: str) -> str:
    return " ".join(name.lower().split()).removeprefix("final ").removesuffix("s")
