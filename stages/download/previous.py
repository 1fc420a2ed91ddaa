"""The retry pass before: what `--retry-failed` takes over as it is, and what it tries again."""

from __future__ import annotations

import os
from types import TracebackType

from stages.base.artifact import Artifact
from stages.download.attempts import Stored
from stages.download.image import Picture
from stages.download.outcome import Failure, Reason


class Previous:
    """One partition of the artifact of an earlier pass."""

    def __init__(self, artifact: Artifact, partition: str) -> None:
        import pyarrow.parquet as pq

        with artifact.open(f"attempts-{partition}.parquet") as file:
            rows = pq.read_table(file).to_pylist()
        self._tar = open(artifact.path(f"raw-{partition}.tar"), "rb")  # noqa: SIM115 - closed by __exit__
        self.found: dict[str, Stored | Failure] = {}
        """Outcomes by image uid; failures that may pass are not among them."""
        for row in rows:
            outcome: Stored | Failure
            if row["status"] == Reason.SUCCESS:
                picture = Picture(b"", row["format"], row["width"], row["height"], row["exif_orientation"])
                digests = row["sha256"], row["source_sha256"]
                outcome = Stored(self, row["offset"], picture, row["length"], *digests, row["hash_ok"])
            else:
                outcome = Failure(row["status"], row["error"] or "")
                if outcome.transient:
                    continue
            self.found[row["image_uid"]] = outcome

    def __enter__(self) -> Previous:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tar.close()

    def get(self, start: int, length: int) -> bytes:
        """Bytes of the earlier pass's shard."""
        return os.pread(self._tar.fileno(), length, start)
