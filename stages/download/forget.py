"""Taking forgotten images out of a `download` artifact: out of the raw shards, and out of the table of attempts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stages.base.artifact import Artifact
from stages.base.forgetting import Gone, Known, Taken, copy_members, parquet_rows, write_parquet


def forget(artifact: Artifact, inputs: Known, gone: Gone, out: Path | None) -> Taken:
    """Members of `raw-*.tar`, and rows of `attempts-*.parquet`, whose offsets are those of the new tar."""
    import pyarrow as pa
    import pyarrow.compute as pc

    taken = Taken()
    for name, kept, lost in parquet_rows(artifact, "attempts-*.parquet", "image_uid", gone.has_image):
        shard = name.replace("attempts-", "raw-").replace(".parquet", ".tar")
        fetched = lost.filter(pc.equal(lost["status"], "success"))
        if fetched.num_rows:
            taken.files.append(shard)
            if out is not None:
                members = dict(zip(fetched["image_uid"].to_pylist(), fetched["ext"].to_pylist(), strict=True))
                names = {f"{uid}.{ext}" for uid, ext in members.items()}
                offsets = copy_members(artifact.path(shard), out / shard, names.__contains__)
                kept = _at(kept, {member.partition(".")[0]: offset for member, offset in offsets.items()})
        write_parquet(kept, out, name, compression="zstd")
        taken.files.append(name)
        taken.samples += lost.num_rows
        taken.counts.update({"images": -lost.num_rows, "success": -fetched.num_rows})
        taken.counts["bytes"] -= int(pc.sum(fetched["length"].cast(pa.int64())).as_py() or 0)
        for row in pc.value_counts(lost["status"]).to_pylist():
            if row["values"] != "success":
                taken.counts[f"status.{row['values']}"] -= row["counts"]
    if taken.files and "hosts.parquet" in artifact.names():
        taken.files.append("hosts.parquet")
        if out is not None:
            _hosts(artifact, out)
    return taken


def _at(table: Any, offsets: dict[str, int]) -> Any:
    """The table with the offsets of a rewritten tar."""
    import pyarrow as pa

    new = [offsets.get(uid) for uid in table["image_uid"].to_pylist()]
    place = table.schema.get_field_index("offset")
    return table.set_column(place, table.schema.field(place), pa.array(new, table.schema.field(place).type))


def _hosts(artifact: Artifact, out: Path) -> None:
    """Figures per host, made again from the attempts that are left."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from stages.download.attempts import Listed
    from stages.download.hosts import hosts_table, listed_host

    rows = []
    for name in artifact.names("attempts-*.parquet"):
        source = out / name if (out / name).exists() else artifact.path(name)
        table = pq.read_table(source, columns=["source", "url", "path", "status", "length"])
        for row in table.to_pylist():
            host = listed_host(Listed("", row["source"], row["url"], row["path"]), private=False)
            rows.append({"host": host, "status": row["status"], "images": 1, "bytes": row["length"] or 0})
    types = {"host": pa.string(), "status": pa.string(), "images": pa.int64(), "bytes": pa.int64()}
    every = pa.Table.from_pylist(rows, pa.schema(types))
    summed = every.group_by(["host", "status"]).aggregate([("images", "sum"), ("bytes", "sum")])
    summed = summed.select(["host", "status", "images_sum", "bytes_sum"]).rename_columns(list(types))
    table = hosts_table(summed.sort_by([("host", "ascending"), ("status", "ascending")]))
    pq.write_table(table, out / "hosts.parquet", compression="zstd")
