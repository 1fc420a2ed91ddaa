"""Making one partition, and closing a stage: the only code that writes into an artifact's folder.

Runs inside a Ray task, a Ray Data actor or the driver alike; it knows nothing of either.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.store import Commit, Place, merged_counts
from stages.artifact import Artifact
from stages.contract import Inputs, Partition, Stage, Task


@dataclass(frozen=True)
class Job:
    """Everything a worker needs to make partitions of one artifact. Picklable."""

    node: str
    stage: Stage[Any]
    fingerprint: str
    url: str
    inputs: Inputs
    scratch: str
    how: Mapping[str, Any]
    cache: str = ""
    tombstones: str = ""

    def task(self, folder: Path) -> Task:
        """The task of one partition, or of the finish, that works in a folder of its own."""
        return Task(self.inputs, folder / "out", folder / "parts", self.scratch, self.how, self.cache, self.tombstones)

    @property
    def place(self) -> Place:
        """The artifact's folder."""
        return Place(self.url)


@contextmanager
def _working_folder(place: Place) -> Iterator[Path]:
    # On a file system the folder lies beside the result, so that publishing is a rename.
    parent = None if place.remote else Path(place.url, "_tmp")
    if parent:
        parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-{uuid.uuid4().hex[:8]}-", dir=parent))
    try:
        (folder / "out").mkdir()
        (folder / "parts").mkdir()
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def run_partition(job: Job, partition: Partition) -> dict[str, Any]:
    """Make and commit one partition; returns its report. Raises whatever the stage raises."""
    place = job.place
    with _working_folder(place) as folder:
        task = job.task(folder)
        job.stage.run(partition, task)
        parts = place.publish(folder / "parts", "_parts/")
        files = place.publish(folder / "out")
        counts = dict(sorted(task.counts.items()))
        place.commit(partition.id, Commit(files, parts, counts, task.report))
    return task.report


def close(job: Job, plan: list[str], identity: Mapping[str, Any], run: Mapping[str, Any]) -> Artifact:
    """Run the stage's `finish` over all commits and seal the artifact with its manifest.

    `identity` (stage, version, config, inputs, fingerprint) goes into the manifest, `run` (start, host, ...) beside it.
    """
    place = job.place
    commits = [place.read_commit(partition) for partition in plan]
    with _working_folder(place) as folder:
        task = job.task(folder)
        place.fetch([f["name"] for c in commits for f in c.parts], "_parts/", task.parts)
        job.stage.finish(task)
        made = place.publish(task.out)
    names = [f["name"] for c in commits for f in c.files] + [f["name"] for f in made]
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise RuntimeError(f"{job.node}: several partitions wrote {twice[0]}; file names must carry the partition id")
    files = sorted([f for c in commits for f in c.files] + made, key=lambda f: f["name"])
    manifest = {**identity, "counts": merged_counts(commits, task.counts), "files": files}
    artifact = place.seal(manifest, run)
    shutil.rmtree(job.scratch, ignore_errors=True)
    return artifact
