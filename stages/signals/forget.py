"""Removes forgotten samples from a `signals` artifact."""

from __future__ import annotations

from pathlib import Path

from stages.base.artifact import Artifact
from stages.base.forgetting import ForgetInputs, Forgotten, Removal, split_parquet, write_parquet

_SETTINGS = {"compression": "zstd", "row_group_size": 65_536}


def forget(artifact: Artifact, inputs: ForgetInputs, forgotten: Forgotten, out: Path | None) -> Removal:
    """Remove rows of `images-*.parquet` and `pairs-*.parquet`."""
    import pyarrow.compute as pc

    removal = Removal()
    for name, kept, lost in split_parquet(artifact, "images-*.parquet", "image_uid", forgotten.image_mask):
        write_parquet(kept, out, name, **_SETTINGS)
        removal.rewritten.append(name)
        undecodable = lost.num_rows - (pc.sum(lost["decoded"]).as_py() or 0)
        removal.counts.update({"images": -lost.num_rows, "undecodable": -undecodable})
    for name, kept, lost in split_parquet(artifact, "pairs-*.parquet", "uid", forgotten.pair_mask):
        write_parquet(kept, out, name, **_SETTINGS)
        removal.rewritten.append(name)
        removal.samples += lost.num_rows
        removal.counts["pairs"] -= lost.num_rows
    return removal
