"""The ingest stage: a source's own lists become tables of pairs, one schema for all sources."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

from stages.artifact import canonical_json
from stages.contract import Inputs, Partition, Stage, Task, UserError
from stages.ingest.config import IngestConfig
from stages.ingest.files import InputFile
from stages.ingest.plugins import source_class
from stages.ingest.source import Pair, Reject, Source, Unit


class Ingest(Stage[IngestConfig]):
    """Inputs: `world` where the source's files are a demonstration's, else none."""

    name = "ingest"

    def partitions(self, inputs: Inputs) -> Sequence[Partition]:
        """One per unit of the source's lists."""
        source = self._source(inputs)
        units = source.splits(source.files())
        return [Partition(f"{number:06d}", unit.to_spec()) for number, unit in enumerate(units)]

    def run(self, partition: Partition, task: Task) -> None:
        """Read one unit: its pairs, what was rejected, and how many rows it had of each file."""
        import pyarrow as pa

        from stages.ingest.merge import part_schema, write_part

        rows: Counter[str] = Counter()
        columns: dict[str, list[Any]] = {name: [] for name in part_schema().names}
        rejects: list[tuple[str, int, str]] = []
        for item in self._source(task.inputs).read(Unit.from_spec(partition.spec)):
            shown = self._shown(item.file)
            reason = item.reason if isinstance(item, Reject) else _fault(item)
            if reason or isinstance(item, Reject):
                rejects.append((shown, rows[shown], str(reason)))
            else:
                self._add(item, columns, int(partition.id), rows[shown])
                if item.image is not None and item.path is not None:
                    target = task.out / item.path
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(item.image)
            rows[shown] += 1
        write_part(pa.table(columns, schema=part_schema()), task.parts / f"unit-{partition.id}.parquet")
        record = {"rows": rows, "rejects": rejects}
        (task.parts / f"unit-{partition.id}.json").write_text(canonical_json(record), encoding="utf-8")
        task.count("rows", rows.total())
        task.count("rejects", len(rejects))

    def finish(self, task: Task) -> None:
        """Merge all units: repeats counted once, all pairs of an image in one file."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        from stages.ingest.merge import WRITER, merged, write_pairs

        counts = write_pairs(merged(sorted(task.parts.glob("unit-*.parquet"))), task.out, self.config.pairs_per_file)
        for name, count in counts.items():
            task.count(name, count)
        schema = pa.schema([("file", pa.string()), ("row", pa.int64()), ("reason", pa.string())])
        rejects = sorted(self._rejects(task))
        table = pa.Table.from_pylist([dict(zip(schema.names, r, strict=True)) for r in rejects], schema=schema)
        pq.write_table(table, task.out / "rejects.parquet", **{**WRITER, "use_dictionary": True})
        if rejects and not counts["pairs"]:
            reason = Counter(reason for _, _, reason in rejects).most_common(1)[0][0]
            raise UserError(
                f"sources.{self.config.name}: none of {len(rejects)} rows is a pair (mostly {reason}): is"
                f" kind={self.config.source.kind} right for these files?"
            )

    def _source(self, inputs: Inputs) -> Source[Any]:
        config = self.config.source
        world = inputs.get("world", ())
        return source_class(config.kind)(self.config.name, config, self.config, world[0] if world else None)

    def _shown(self, file: InputFile) -> str:
        return file.name.rsplit("/", 1)[-1] if self.config.source.private else file.name

    def _add(self, pair: Pair, columns: dict[str, list[Any]], unit: int, row: int) -> None:
        from stages.sample import image_uid, pair_uid

        source = self.config.name
        url = pair.url.strip() if pair.url is not None else None
        location = url if url is not None else str(pair.path)
        values = {
            "uid": pair_uid(source, location, pair.caption),
            "image_uid": image_uid(source, location),
            "source": source,
            "url": url,
            "path": pair.path,
            "caption": pair.caption,
            "license": pair.license or self.config.source.license,
            "meta": json.dumps(pair.meta, ensure_ascii=True, separators=(",", ":"), allow_nan=False),
            "unit": unit,
            "row": row,
        }
        for name, value in values.items():
            columns[name].append(value)

    def _rejects(self, task: Task) -> Iterator[tuple[str, int, str]]:
        # A unit numbers the rows of its own range; the ranges before it in the same file say where that begins.
        before: Counter[str] = Counter()
        for record in sorted(task.parts.glob("unit-*.json")):
            unit = json.loads(record.read_text("utf-8"))
            yield from ((file, before[file] + row, reason) for file, row, reason in unit["rejects"])
            before.update(unit["rows"])


def _fault(pair: Pair) -> str | None:
    """Why a listed pair cannot be one, or None."""
    if not pair.caption.strip():
        return "no_caption"
    if pair.url is not None:
        if not pair.url.strip():
            return "no_url"
        try:
            address = urlsplit(pair.url.strip())
        except ValueError:
            return "bad_url"
        if address.scheme.lower() not in ("http", "https") or not address.netloc:
            return "bad_url"
    elif not pair.path:
        return "no_path"
    try:
        # A lone surrogate (JSON can hold one) is no text: neither Arrow nor a file could store it.
        f"{pair.caption}{pair.url or pair.path}{pair.license or ''}".encode()
    except UnicodeEncodeError:
        return "not_utf8"
    return None
