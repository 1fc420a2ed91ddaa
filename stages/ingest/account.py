"""The account of what was read: rows, rejects and columns of every list file, and files that could not be read."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate, groupby, pairwise
from pathlib import Path
from typing import Any

from stages.base.artifact import canonical_json
from stages.base.contract import UserError
from stages.ingest.config import IngestConfig
from stages.ingest.files import BadFile, InputFile
from stages.ingest.source import Columns

_NAMED = 5  # bad files in an error message


@dataclass
class UnitAccount:
    """What one unit of work met."""

    private: bool
    rows: Counter[str] = field(default_factory=Counter)
    """Listed rows per file."""
    pairs: Counter[str] = field(default_factory=Counter)
    rejects: dict[str, list[Any]] = field(default_factory=lambda: {"file": [], "row": [], "reason": []})
    columns: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    """Names and types, in the order of the file."""
    ignored: dict[str, list[str]] = field(default_factory=dict)
    """Columns of captions that an image-only source lists all the same."""
    sizes: dict[str, int] = field(default_factory=dict)
    bad: list[tuple[str, int, str, str]] = field(default_factory=list)
    """File, row it broke at, reason, detail."""

    def shown(self, file: InputFile) -> str:
        """What a file is called in the artifact: of a private source without its folder."""
        return file.name.rsplit("/", 1)[-1] if self.private else file.name

    def reject(self, shown: str, row: int, reason: str) -> None:
        """Record one row that is no pair."""
        for name, value in (("file", shown), ("row", row), ("reason", reason)):
            self.rejects[name].append(value)

    def starts(self, item: Columns) -> None:
        """Record what a list file has."""
        shown = self.shown(item.file)
        self.columns[shown] = list(item.columns.items())
        if item.ignored:
            self.ignored[shown] = list(item.ignored)
        self.sizes[shown] = item.file.size()

    def breaks(self, error: BadFile) -> None:
        """Record that reading a file came to an end before its end."""
        shown = self.shown(error.file)
        self.bad.append((shown, self.rows[shown], error.reason, "" if self.private else error.detail))

    def write(self, parts: Path, unit: str) -> None:
        """Put it aside for :func:`write_rejects` and :func:`write_files`."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        record = {name: getattr(self, name) for name in ("rows", "pairs", "columns", "ignored", "sizes", "bad")}
        (parts / f"unit-{unit}.json").write_text(canonical_json(record), encoding="utf-8")
        pq.write_table(pa.table(self.rejects, schema=_rejects_schema()), parts / f"rejects-{unit}.parquet")


def _rejects_schema() -> Any:
    import pyarrow as pa

    return pa.schema([("file", pa.string()), ("row", pa.int64()), ("reason", pa.string())])


def _records(parts: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted(parts.glob("unit-*.json")):
        yield path.stem.removeprefix("unit-"), json.loads(path.read_text("utf-8"))


def write_rejects(parts: Path, out: Path, writer: Mapping[str, Any]) -> Counter[str]:
    """Write `rejects.parquet`, sorted by (file, row); returns how many there are per reason.

    A unit numbers the rows of its own range; the ranges before it in the same file say where that begins. At most two
    units' rejects and a row group are held.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    schema = _rejects_schema()
    before: Counter[str] = Counter()
    units_of: dict[str, list[tuple[str, int]]] = {}
    reasons: Counter[str] = Counter()
    for unit, record in _records(parts):
        table = pq.read_table(parts / f"rejects-{unit}.parquet", schema=schema)
        for file in pc.unique(table["file"]).to_pylist():
            units_of.setdefault(file, []).append((unit, before[file]))
        for entry in pc.value_counts(table["reason"]).to_pylist():
            reasons[entry["values"]] += entry["counts"]
        before.update(record["rows"])

    @lru_cache(maxsize=2)  # files of a unit follow one another by name as well, as a rule
    def unit_rejects(unit: str) -> tuple[pa.Table, dict[str, tuple[int, int]]]:
        table = pq.read_table(parts / f"rejects-{unit}.parquet", schema=schema)
        table = table.sort_by([("file", "ascending"), ("row", "ascending")])
        runs = pc.value_counts(table["file"]).to_pylist()  # in the order in which they come
        ends = list(accumulate(run["counts"] for run in runs))
        return table, {run["values"]: span for run, span in zip(runs, pairwise([0, *ends]), strict=True)}

    def units(file: str) -> Any:
        """What files must share to be read together: the one unit that they are in."""
        return units_of[file] if len(units_of[file]) == 1 else file

    def of_files() -> Iterator[pa.Table]:
        for _, together in groupby(sorted(units_of), key=units):
            files = list(together)
            for unit, offset in units_of[files[0]]:
                table, spans = unit_rejects(unit)
                start, stop = spans[files[0]][0], spans[files[-1]][1]
                rows = table.slice(start, stop - start)
                yield rows.set_column(1, "row", pc.add(rows["row"], pa.scalar(offset, pa.int64())))

    group = int(writer["row_group_size"])
    settings = {name: value for name, value in writer.items() if name != "row_group_size"}
    with pq.ParquetWriter(out / "rejects.parquet", schema, **settings) as target:
        held: list[pa.Table] = []
        waiting = 0
        for table in of_files():
            held.append(table)
            waiting += table.num_rows
            if waiting >= group:
                ready = pa.concat_tables(held).combine_chunks()
                whole = waiting - waiting % group
                target.write_table(ready.slice(0, whole), row_group_size=group)
                held, waiting = [ready.slice(whole)], waiting - whole
        if waiting or not reasons:
            last = pa.concat_tables([schema.empty_table(), *held]).combine_chunks()
            target.write_table(last, row_group_size=group)
    return reasons


def write_files(parts: Path, out: Path, writer: Mapping[str, Any]) -> dict[str, int]:
    """Write `files.parquet`, `bad_files.parquet` and `preview.json`; returns how many files each is about."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows: Counter[str] = Counter()
    pairs: Counter[str] = Counter()
    sizes: dict[str, int] = {}
    bad: dict[str, tuple[int, str, str]] = {}
    schema_of: dict[str, int] = {}
    schemas: dict[str, dict[str, Any]] = {}
    ignoring: set[str] = set()
    for _, record in _records(parts):
        for file, row, reason, detail in record["bad"]:
            bad.setdefault(file, (rows[file] + row, reason, detail))
        rows.update(record["rows"])
        pairs.update(record["pairs"])
        sizes.update(record["sizes"])
        ignoring.update(record["ignored"])
        for file, columns in record["columns"].items():
            ignored = {"ignored": record["ignored"][file]} if file in record["ignored"] else {}
            known = schemas.setdefault(
                json.dumps(columns),
                {
                    "number": len(schemas),
                    "columns": [{"name": name, "type": type} for name, type in columns],
                    "files": 0,
                    "first_file": file,
                    **ignored,
                },
            )
            known["files"] += 1
            schema_of[file] = known["number"]
    names = sorted({*schema_of, *bad})
    listed = {
        "file": names,
        "bytes": [sizes.get(name) for name in names],
        "rows": [rows[name] for name in names],
        "pairs": [pairs[name] for name in names],
        "schema": [schema_of.get(name) for name in names],
    }
    types = {"file": pa.string(), "bytes": pa.int64(), "rows": pa.int64(), "pairs": pa.int64(), "schema": pa.int32()}
    pq.write_table(pa.table(listed, schema=pa.schema(types)), out / "files.parquet", **writer)
    broken = [(name, *bad[name]) for name in sorted(bad)]
    columns = list(zip(*broken, strict=True)) or [(), (), (), ()]
    fields = (("file", pa.string()), ("row", pa.int64()), ("reason", pa.string()), ("detail", pa.string()))
    table = pa.table({name: list(values) for (name, _), values in zip(fields, columns, strict=True)}, pa.schema(fields))
    pq.write_table(table, out / "bad_files.parquet", **writer)
    (out / "preview.json").write_text(canonical_json({"schemas": list(schemas.values())}) + "\n", encoding="utf-8")
    counts = {"files": len(names), "bad_files": len(bad)}
    return {**counts, "files_with_ignored_captions": len(ignoring)} if ignoring else counts


def check_bad_files(config: IngestConfig, reports: Sequence[Mapping[str, Any]]) -> None:
    """Raise UserError when more list files could not be read than `ingest.max_bad_files` allows.

    `reports` are those of partitions: ``{"files": how many the source has, "bad": [[number, name, reason, detail]]}``.
    """
    bad = {number: (name, reason, detail) for r in reports for number, name, reason, detail in r.get("bad", ())}
    if not bad:
        return
    files = max(report["files"] for report in reports if report.get("bad"))
    share = config.max_bad_files
    allowed = max(int(share * files), 1 if share and files >= 3 else 0)
    if len(bad) <= allowed:
        return
    listed = []
    for number, (name, reason, detail) in sorted(bad.items())[:_NAMED]:
        called = f"number {number + 1} by name" if config.source.private else name
        listed.append(f"{called} ({detail or reason})")
    more = f" and {len(bad) - _NAMED} more" if len(bad) > _NAMED else ""
    raise UserError(
        f"sources.{config.name}: {len(bad)} of {files} files cannot be read, more than"
        f" ingest.max_bad_files={share:g} allows: {', '.join(listed)}{more}; mend them or take them out of"
        f" sources.{config.name}.paths"
    )
