"""Taking forgotten captions out of a `tokens` artifact, before its shards lose the samples."""

from __future__ import annotations

import json
from pathlib import Path

from stages.base.artifact import Artifact
from stages.base.forgetting import Gone, Known, Taken


def forget(artifact: Artifact, inputs: Known, gone: Gone, out: Path | None) -> Taken:
    """Ids of the samples that the shards of input `shards` still hold and are about to lose.

    A shard whose ids are fewer than its samples already lost them (an earlier attempt was cut short in between).
    Raises RuntimeError when ids and samples do not belong together.
    """
    import numpy as np
    import pyarrow.compute as pc

    from stages.shard.index import Index

    taken = Taken()
    (shards,) = inputs["shards"]
    if shards is None:
        return taken
    index = Index.open(shards.path("index.arrow"))
    lost = gone.has_pair(index.table["uid"]).to_numpy().astype(bool)
    content = artifact.read_json("tokens.json")
    names = index.table["source"]
    for shard in pc.unique(index.table["shard"].filter(lost)).to_pylist():
        samples = index.of_shard(shard)
        mine = lost[samples.start : samples.stop]
        stem = content["shards"][shard]
        offsets = np.load(artifact.path(f"{stem}.offsets.npy"))
        if len(offsets) - 1 == len(mine) - int(mine.sum()):
            continue
        if len(offsets) - 1 != len(mine):
            raise RuntimeError(f"{artifact.url}: {stem} holds {len(offsets) - 1} captions, its shard {len(mine)}")
        ids = np.load(artifact.path(f"{stem}.ids.npy"), mmap_mode="r")
        lengths = np.diff(offsets)
        taken.samples += int(mine.sum())
        taken.files += [f"{stem}.ids.npy", f"{stem}.offsets.npy"]
        taken.counts.update({"samples": -int(mine.sum()), "tokens": -int(lengths[mine].sum())})
        rows = np.flatnonzero(mine)
        for source, length in zip(names.take(samples.start + rows).to_pylist(), lengths[rows].tolist(), strict=True):
            # What was lost of them on the way there and back is told as it was when the ids were made.
            if figures := content.get("sources", {}).get(source):
                figures["samples"] -= 1
                figures["tokens"] -= length
        if out is not None:
            np.save(out / f"{stem}.ids.npy", ids[np.repeat(~mine, lengths)])
            np.save(out / f"{stem}.offsets.npy", np.concatenate([[0], np.cumsum(lengths[~mine])]).astype(np.int64))
    if taken.files:
        taken.files.append("tokens.json")
        content["tokens"] += taken.counts["tokens"]
        if out is not None:
            (out / "tokens.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return taken
