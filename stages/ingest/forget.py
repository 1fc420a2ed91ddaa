"""Removes forgotten pairs from an `ingest` artifact."""

from __future__ import annotations

from pathlib import Path

from stages.base.artifact import Artifact
from stages.base.forgetting import ForgetInputs, Forgotten, Removal, split_parquet, write_parquet


def forget(artifact: Artifact, inputs: ForgetInputs, forgotten: Forgotten, out: Path | None) -> Removal:
    """Remove rows of `pairs-*.parquet`, and the images that the artifact itself holds for them."""
    from stages.ingest.merge import WRITER

    removal = Removal()
    own = set(artifact.names("images/*"))
    for name, kept, lost in split_parquet(artifact, "pairs-*.parquet", "uid", forgotten.pair_mask):
        write_parquet(kept, out, name, **WRITER)
        removal.rewritten.append(name)
        removal.samples += lost.num_rows
        # All pairs of an image are in one file.
        images = set(lost["image_uid"].to_pylist()) - set(kept["image_uid"].to_pylist())
        removal.counts.update({"pairs": -lost.num_rows, "images": -len(images), "forgotten": lost.num_rows})
        paths = set(lost["path"].drop_null().to_pylist()) - set(kept["path"].drop_null().to_pylist())
        removal.deleted += sorted(paths & own)
    return removal
