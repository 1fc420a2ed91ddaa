"""Removes forgotten images from a `download` artifact and from the journals of an unfinished one."""

from __future__ import annotations

import re
import shutil
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

from stages.base.artifact import Artifact
from stages.base.forgetting import ForgetInputs, Forgotten, Removal, copy_members, split_parquet, write_parquet
from stages.download.fetch import RATE_LIMITS

_HEX = re.compile(r"[0-9a-f]{32,64}")


def forget(artifact: Artifact, inputs: ForgetInputs, forgotten: Forgotten, out: Path | None) -> Removal:
    """Remove members of `raw-*.tar` and rows of `attempts-*.parquet`; the other rows get the offsets of the new tar."""
    import pyarrow as pa
    import pyarrow.compute as pc

    removal = Removal()
    for name, kept, lost in split_parquet(artifact, "attempts-*.parquet", "image_uid", forgotten.image_mask):
        shard = name.replace("attempts-", "raw-").replace(".parquet", ".tar")
        fetched = lost.filter(pc.equal(lost["status"], "success"))
        if fetched.num_rows:
            removal.rewritten.append(shard)
            if out is not None:
                members = dict(zip(fetched["image_uid"].to_pylist(), fetched["ext"].to_pylist(), strict=True))
                names = {f"{uid}.{ext}" for uid, ext in members.items()}
                offsets = copy_members(artifact.path(shard), out / shard, names.__contains__)
                kept = _at(kept, {member.partition(".")[0]: offset for member, offset in offsets.items()})
        write_parquet(kept, out, name, compression="zstd")
        removal.rewritten.append(name)
        removal.samples += lost.num_rows
        removal.counts.update({"images": -lost.num_rows, "success": -fetched.num_rows})
        removal.counts["bytes"] -= int(pc.sum(fetched["length"].cast(pa.int64())).as_py() or 0)
        for row in pc.value_counts(lost["status"]).to_pylist():
            if row["values"] != "success":
                removal.counts[f"status.{row['values']}"] -= row["counts"]
    if removal.rewritten and "hosts.parquet" in artifact.names():
        removal.rewritten.append("hosts.parquet")
        if out is not None:
            _hosts(artifact, out)
    return removal


def _at(table: Any, offsets: dict[str, int]) -> Any:
    """The table with the offsets of a rewritten tar."""
    import pyarrow as pa

    new = [offsets.get(uid) for uid in table["image_uid"].to_pylist()]
    column = table.schema.get_field_index("offset")
    return table.set_column(column, table.schema.field(column), pa.array(new, table.schema.field(column).type))


def _hosts(artifact: Artifact, out: Path) -> None:
    """Compute the figures per host again from the remaining attempts."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from stages.download.attempts import ListedImage
    from stages.download.hosts import hosts_table, listed_host

    rows = []
    for name in artifact.names("attempts-*.parquet"):
        source = out / name if (out / name).exists() else artifact.path(name)
        table = pq.read_table(source, columns=["source", "url", "path", "status", "length"])
        for row in table.to_pylist():
            host = listed_host(ListedImage("", row["source"], row["url"], row["path"]), private=False)
            rows.append({"host": host, "status": row["status"], "images": 1, "bytes": row["length"] or 0})
    types = {"host": pa.string(), "status": pa.string(), "images": pa.int64(), "bytes": pa.int64()}
    every = pa.Table.from_pylist(rows, pa.schema(types))
    summed = every.group_by(["host", "status"]).aggregate([("images", "sum"), ("bytes", "sum")])
    summed = summed.select(["host", "status", "images_sum", "bytes_sum"]).rename_columns(list(types))
    table = hosts_table(summed.sort_by([("host", "ascending"), ("status", "ascending")]))
    pq.write_table(table, out / "hosts.parquet", compression="zstd")


def forget_scratch(scratch: Path, marks: AbstractSet[str]) -> None:
    """Remove the folders of partitions whose journal (`stages/download/journal.py`) names a forgotten image, or that
    have none: these partitions are fetched again. What hosts asked for is forgotten as well."""
    shutil.rmtree(scratch / RATE_LIMITS, ignore_errors=True)
    for folder in scratch.glob("download/*"):
        journal = folder / "journal"
        if not journal.exists() or not marks.isdisjoint(_HEX.findall(journal.read_text("utf-8"))):
            shutil.rmtree(folder)
