"""The ingest stage: a source's own lists become tables of pairs, one schema for all sources."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from stages.base.artifact import Artifact
from stages.base.contract import Inputs, Partition, Stage, StageContext, UserError
from stages.base.forgetting import ForgetInputs, Forgotten, Removal
from stages.ingest.account import UnitAccount, check_bad_files, write_files, write_rejects
from stages.ingest.config import IngestConfig
from stages.ingest.faults import fault
from stages.ingest.plugins import source_class
from stages.ingest.source import Columns, Digest, Item, Reject, Source, Unit

_FORGOTTEN = "forgotten"
#: What may help where all rows of a source are rejected for the same reason.
_REMEDY = {
    "no_caption": " If these are images without captions, set captions=none.",
    "not_text": " If a row lists several captions, captions=each makes a pair of each (kinds table, laion, datacomp).",
    "not_utf8": " If these lists are in another encoding, set encoding, e.g. to cp1252 (kinds table, cc3m, cc12m).",
    "not_two_columns": " Lists with a header or another delimiter than the tab are of kind=table.",
    "unsupported_compression": " JPEG-LS needs pip install 'pairmill[jpegls]', lossless JPEG pip install python-gdcm.",
    "archive": " Unpack the archives first.",
}


class Ingest(Stage[IngestConfig]):
    """No inputs, except what holds files that the source addresses (`stages/base/external_files.py`)."""

    name = "ingest"
    version = 3
    holds_samples = True
    sample_tables = ("pairs-*.parquet",)
    keeps_clean_partitions = True

    def partitions(self, inputs: Inputs) -> Sequence[Partition]:
        """One per unit of the source's lists."""
        source = self._source(inputs)
        units = source.units()
        passed_over = sum(source.system_files.values())
        files = list(dict.fromkeys(file.url for unit in units for file in unit.files))
        position = {url: number for number, url in enumerate(files)}
        return [
            Partition(
                f"{number:06d}",
                {
                    **unit.to_spec(),
                    "number": position[unit.files[0].url] if unit.files else 0,
                    "of": len(files),
                    "system_files": 0 if number else passed_over,
                },
            )
            for number, unit in enumerate(units)
        ]

    def run(self, partition: Partition, context: StageContext) -> None:
        """Read one unit: its pairs, what was rejected, and how many rows it had of each file."""
        unit = Unit.from_spec(partition.spec)
        account = (self._digests if unit.role == "hashes" else self._pairs)(unit, partition, context)
        account.write(context.intermediate, partition.id)
        if passed_over := partition.spec.get("system_files"):
            context.count("system_files", passed_over)
        if account.bad:
            number = partition.spec["number"]
            bad = [[number, shown, reason, detail] for shown, _, reason, detail in account.bad]
            context.report.update(files=partition.spec["of"], bad=bad)

    def _pairs(self, unit: Unit, partition: Partition, context: StageContext) -> UnitAccount:
        import pyarrow as pa

        from stages.base.pairs import image_uid, pair_uid
        from stages.base.tombstones import Tombstones
        from stages.ingest.merge import part_schema, write_part
        from stages.ingest.values import plain

        name, license, image_only = self.config.name, self.config.source.license, self.config.source.image_only
        account = UnitAccount(self.config.source.private)
        rows, encode = account.rows, json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
        tombstones = Tombstones.load(context.tombstones) if context.tombstones else Tombstones()
        pairs_read: list[tuple[Any, ...]] = []
        for item in self._items(unit, context.inputs, account):
            shown = account.shown(item.file)
            row = rows[shown]
            rows[shown] = row + 1
            if image_only and not isinstance(item, Reject):
                item = item._replace(caption="")
            reason = item.reason if isinstance(item, Reject) else fault(item, self.config, image_only)
            if reason is not None or isinstance(item, Reject):
                account.reject(shown, row, str(reason))
                continue
            url = None if item.url is None else item.url.strip()
            location = url or str(item.path)
            uid, image = pair_uid(name, location, item.caption), image_uid(name, location)
            if tombstones and tombstones.covers_pair(uid, image, url):
                account.reject(shown, row, _FORGOTTEN)
                continue
            meta = item.meta if isinstance(item.meta, str) else encode(plain(item.meta)) if item.meta else "{}"
            pairs_read.append((uid, image, name, url, item.path, item.caption, item.license or license, meta, row))
            account.pairs[shown] += 1
            if item.image is not None and item.path is not None:
                target = context.out / item.path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(item.image)
        schema = part_schema()
        columns = (
            dict(zip([*schema.names[:-2], "row"], zip(*pairs_read, strict=True), strict=True)) if pairs_read else {}
        )
        columns["unit"] = [int(partition.id)] * len(pairs_read)
        table = pa.table([pa.array(columns.get(f.name, ()), f.type) for f in schema], schema=schema)
        write_part(table, context.intermediate / f"unit-{partition.id}.parquet")
        context.count("rows", rows.total())
        context.count("rejects", len(account.rejects["row"]))
        return account

    def _items(self, unit: Unit, inputs: Inputs, account: UnitAccount) -> Iterator[Any]:
        """The unit's rows; columns of list files and files that break off go into the account."""
        from stages.ingest.files import damage, read_errors

        items: Iterator[Item] = iter(self._source(inputs).read(unit))
        while True:
            try:
                item = next(items, None)
            except read_errors() as error:
                broken = damage(error, unit.files[0])
                if broken is None:
                    raise
                account.breaks(broken)
                return
            if item is None:
                return
            if isinstance(item, Columns):
                account.starts(item)
            else:
                yield item

    def _digests(self, unit: Unit, partition: Partition, context: StageContext) -> UnitAccount:
        import pyarrow as pa

        from stages.base.pairs import image_uid
        from stages.ingest.merge import digests_schema, write_digests

        account = UnitAccount(self.config.source.private)
        digest_rows: list[tuple[str, str, int, int]] = []
        for row, item in enumerate(self._items(unit, context.inputs, account)):
            if not isinstance(item, Digest):
                context.count("bad_digests")
                continue
            facts = ",".join(f'"{kind}":"{d}"' for kind, d in (("sha256", item.sha256), ("md5", item.md5)) if d)
            digest_rows.append((image_uid(self.config.name, item.location), facts, int(partition.id), row))
        columns = zip(*digest_rows, strict=True) if digest_rows else [()] * 4
        schema = digests_schema()
        arrays = [pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)]
        write_digests(pa.table(arrays, schema=schema), context.intermediate / f"digests-{partition.id}.parquet")
        context.count("digests", len(digest_rows))
        return account

    def on_commit(self, reports: Sequence[Mapping[str, Any]]) -> None:
        """Stop when more files than allowed could not be read."""
        check_bad_files(self.config, reports)

    def finish(self, context: StageContext) -> None:
        """Merge all units: repeats counted once, all pairs of an image in one file."""
        from stages.ingest.merge import WRITER, merge

        # `intermediate` and `out` may be on this machine alone; the tasks of the merge see the scratch folder.
        folder = Path(context.scratch, "merge")
        shutil.rmtree(folder, ignore_errors=True)
        moved: dict[str, list[Path]] = {}
        for kind in ("unit", "digests"):
            (folder / kind).mkdir(parents=True)
            files = sorted(context.intermediate.glob(f"{kind}-*.parquet"))
            moved[kind] = [Path(shutil.move(file, folder / kind / file.name)) for file in files]
        (folder / "made").mkdir()
        counts = merge(moved["unit"], moved["digests"], folder, folder / "made", self.config.pairs_per_file)
        for file in sorted((folder / "made").iterdir()):
            shutil.move(file, context.out / file.name)
        shutil.rmtree(folder)
        writer = {**WRITER, "use_dictionary": True}
        counts.update(write_files(context.intermediate, context.out, writer))
        for name, count in counts.items():
            context.count(name, count)
        reasons = write_rejects(context.intermediate, context.out, writer)
        reasons.pop(_FORGOTTEN, None)
        if reasons and not counts["pairs"]:
            reason = reasons.most_common(1)[0][0]
            raise UserError(
                f"sources.{self.config.name}: none of {reasons.total()} rows is a pair (mostly {reason}): is"
                f" kind={self.config.source.kind} right for these files?{_REMEDY.get(reason, '')}"
            )

    def _source(self, inputs: Inputs) -> Source[Any]:
        config = self.config.source
        return source_class(config.kind)(self.config.name, config, self.config, inputs)

    @classmethod
    def forget(cls, artifact: Artifact, inputs: ForgetInputs, forgotten: Forgotten, out: Path | None) -> Removal:
        """See `stages/ingest/forget.py`."""
        from stages.ingest.forget import forget

        return forget(artifact, inputs, forgotten, out)
