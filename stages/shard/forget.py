"""Removes forgotten samples from a `shard` artifact: only shards that contain one are rewritten."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stages.base.artifact import Artifact, file_sha256
from stages.base.forgetting import ForgetInputs, Forgotten, Removal, copy_members

_PARTS = ("image", "text", "json")


def forget(artifact: Artifact, inputs: ForgetInputs, forgotten: Forgotten, out: Path | None) -> Removal:
    """Remove members of the shards concerned and their rows of `index.arrow`; update `dataset.json`."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from stages.shard.index import ShardIndex, write_index

    index = ShardIndex.open(artifact.path("index.arrow"))
    lost = (table.filter(forgotten.pair_mask(table["uid"])) for table in index.tables())
    rows = pa.concat_tables([index.table.slice(0, 0), *lost])  # all samples may be gone already
    removal = Removal(samples=rows.num_rows)
    if not rows.num_rows:
        return removal
    dataset = artifact.read_json("dataset.json")
    shards = sorted(pc.unique(rows["shard"]).to_pylist())
    removal.rewritten = ["dataset.json", "index.arrow", *(dataset["shards"][shard]["name"] for shard in shards)]
    image_bytes = pc.sum(rows["image_length"]).as_py()
    removal.counts.update({"samples": -rows.num_rows, "image_bytes": -image_bytes})
    if out is None:
        return removal
    moved: dict[str, dict[str, int]] = {}
    for shard in shards:
        entry = dataset["shards"][shard]
        uids = set(rows.filter(pc.equal(rows["shard"], shard))["uid"].to_pylist())
        path = out / entry["name"]
        offsets = copy_members(artifact.path(entry["name"]), path, lambda name, uids=uids: _stem(name) in uids)  # type: ignore[misc]
        for name, offset in offsets.items():
            moved.setdefault(_stem(name), {})[name.rpartition(".")[2]] = offset
        removal.counts["bytes"] += path.stat().st_size - entry["bytes"]
        size = path.stat().st_size
        entry.update(samples=entry["samples"] - len(uids), bytes=size, sha256=file_sha256(path))
    dataset["samples"] -= rows.num_rows
    if "image_only" in dataset:
        lost_of = Counter(rows["source"].to_pylist())
        image_only = {name: count - lost_of[name] for name, count in dataset.pop("image_only").items()}
        if any(image_only.values()):
            dataset["image_only"] = {name: count for name, count in image_only.items() if count}

    def left() -> Iterator[Any]:
        for table in index.tables():
            table = table.filter(pc.invert(forgotten.pair_mask(table["uid"])))
            yield _at(table, pc.is_in(table["shard"], value_set=pa.array(shards, pa.int32())), moved)

    write_index(out / "index.arrow", left(), index.sources())
    (out / "dataset.json").write_text(json.dumps(dataset, indent=1) + "\n", "utf-8")
    return removal


def _stem(name: str) -> str:
    return name.partition(".")[0]


def _at(table: Any, concerned: Any, moved: dict[str, dict[str, int]]) -> Any:
    """The index with the offsets of rewritten shards."""
    import numpy as np
    import pyarrow as pa

    places = np.flatnonzero(concerned.to_numpy().astype(bool))
    if not len(places):
        return table
    chosen = table.take(pa.array(places))
    uids, extensions = chosen["uid"].to_pylist(), chosen["image_ext"].to_pylist()
    for part in _PARTS:
        field = table.schema.get_field_index(f"{part}_offset")
        offsets = table.column(field).to_numpy().copy()
        extension = {"text": "txt", "json": "json"}.get(part)
        # An image-only sample has no text, and 0 for its offset.
        new = [{"txt": 0, **moved[u]}[extension or e] for u, e in zip(uids, extensions, strict=True)]
        offsets[places] = np.array(new, dtype=np.int64)
        table = table.set_column(field, table.schema.field(field), pa.array(offsets))
    return table
