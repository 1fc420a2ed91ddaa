"""Taking forgotten samples out of a `signals` artifact."""

from __future__ import annotations

from pathlib import Path

from stages.base.artifact import Artifact
from stages.base.forgetting import Gone, Known, Taken, parquet_rows, write_parquet

_SETTINGS = {"compression": "zstd", "row_group_size": 65_536}


def forget(artifact: Artifact, inputs: Known, gone: Gone, out: Path | None) -> Taken:
    """Rows of `images-*.parquet` and `pairs-*.parquet`."""
    import pyarrow.compute as pc

    taken = Taken()
    for name, kept, lost in parquet_rows(artifact, "images-*.parquet", "image_uid", gone.has_image):
        write_parquet(kept, out, name, **_SETTINGS)
        taken.files.append(name)
        undecodable = lost.num_rows - (pc.sum(lost["decoded"]).as_py() or 0)
        taken.counts.update({"images": -lost.num_rows, "undecodable": -undecodable})
    for name, kept, lost in parquet_rows(artifact, "pairs-*.parquet", "uid", gone.has_pair):
        write_parquet(kept, out, name, **_SETTINGS)
        taken.files.append(name)
        taken.samples += lost.num_rows
        taken.counts["pairs"] -= lost.num_rows
    return taken
