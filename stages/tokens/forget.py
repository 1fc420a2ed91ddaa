"""Removes forgotten captions from a `tokens` artifact, while its shards still hold the samples."""

from __future__ import annotations

import json
from pathlib import Path

from stages.base.artifact import Artifact
from stages.base.forgetting import ForgetInputs, Forgotten, Removal


def forget(artifact: Artifact, inputs: ForgetInputs, forgotten: Forgotten, out: Path | None) -> Removal:
    """Remove the ids of the samples that are going to be removed from the shards of input `shards`
    (`Tokens.forget_before`).

    If a shard has fewer captions here than samples there, its ids were removed by an earlier attempt that was killed.
    Raises RuntimeError when ids and samples do not belong together.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    from stages.shard.index import ShardIndex

    removal = Removal()
    (shards,) = inputs["shards"]
    if shards is None:
        return removal
    index = ShardIndex.open(shards.path("index.arrow"))
    concerned: set[int] = set()
    for table in index.tables():
        concerned.update(pc.unique(table["shard"].filter(forgotten.pair_mask(table["uid"]))).to_pylist())
    content = artifact.read_json("tokens.json")
    for shard in sorted(concerned):
        samples = index.of_shard(shard)
        table = index.table.slice(samples.start, len(samples))
        mine = forgotten.pair_mask(table["uid"]).to_numpy().astype(bool)
        stem = content["shards"][shard]
        offsets = np.load(artifact.path(f"{stem}.offsets.npy"))
        if len(offsets) - 1 == len(mine) - int(mine.sum()):
            continue
        if len(offsets) - 1 != len(mine):
            raise RuntimeError(f"{artifact.url}: {stem} holds {len(offsets) - 1} captions, its shard {len(mine)}")
        ids = np.load(artifact.path(f"{stem}.ids.npy"), mmap_mode="r")
        lengths = np.diff(offsets)
        removal.samples += int(mine.sum())
        removal.rewritten += [f"{stem}.ids.npy", f"{stem}.offsets.npy"]
        removal.counts.update({"samples": -int(mine.sum()), "tokens": -int(lengths[mine].sum())})
        rows = np.flatnonzero(mine)
        names = table["source"].take(pa.array(rows)).to_pylist()
        for source, length in zip(names, lengths[rows].tolist(), strict=True):
            # `round_trip_failed` and `unknown` stay as they were when the ids were made.
            if figures := content.get("sources", {}).get(source):
                figures["samples"] -= 1
                figures["tokens"] -= length
        if out is not None:
            np.save(out / f"{stem}.ids.npy", ids[np.repeat(~mine, lengths)])
            np.save(out / f"{stem}.offsets.npy", np.concatenate([[0], np.cumsum(lengths[~mine])]).astype(np.int64))
    if removal.rewritten:
        removal.rewritten.append("tokens.json")
        content["tokens"] += removal.counts["tokens"]
        if out is not None:
            (out / "tokens.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return removal
