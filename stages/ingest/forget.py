"""Taking forgotten pairs out of an `ingest` artifact."""

from __future__ import annotations

from pathlib import Path

from stages.base.artifact import Artifact
from stages.base.forgetting import Gone, Known, Taken, parquet_rows, write_parquet


def forget(artifact: Artifact, inputs: Known, gone: Gone, out: Path | None) -> Taken:
    """Rows of `pairs-*.parquet`, and the images that the artifact itself holds for them."""
    from stages.ingest.merge import WRITER

    taken = Taken()
    own = set(artifact.names("images/*"))
    for name, kept, lost in parquet_rows(artifact, "pairs-*.parquet", "uid", gone.has_pair):
        write_parquet(kept, out, name, **WRITER)
        taken.files.append(name)
        taken.samples += lost.num_rows
        # All pairs of an image are in one file.
        images = set(lost["image_uid"].to_pylist()) - set(kept["image_uid"].to_pylist())
        taken.counts.update({"pairs": -lost.num_rows, "images": -len(images), "forgotten": lost.num_rows})
        paths = set(lost["path"].drop_null().to_pylist()) - set(kept["path"].drop_null().to_pylist())
        taken.removed += sorted(paths & own)
    return taken
