"""Making one partition, and closing a stage: the only code that writes into an artifact's folder.

Runs inside a Ray task, a Ray Data actor or the driver alike; it knows nothing of either.
"""

from __future__ import annotations

import fnmatch
import os
import shutil
import tempfile
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from pipelines.failures import disk_errors_told
from pipelines.store import ArtifactDir, Commit
from stages.base.artifact import Artifact
from stages.base.contract import Inputs, Partition, Stage, StageContext


@dataclass(frozen=True)
class ArtifactJob:
    """Everything a worker needs to make partitions of one artifact. Picklable."""

    node: str
    stage: Stage[Any]
    fingerprint: str
    url: str
    inputs: Inputs
    scratch: str
    cluster: Mapping[str, Any]
    cache: str = ""
    tombstones: str = ""
    earlier: Mapping[str, str] = field(default_factory=dict)

    @property
    def folders(self) -> tuple[str, ...]:
        """Where making the artifact writes."""
        return self.url, self.scratch, self.cache

    def context(self, folder: Path) -> StageContext:
        """The context of one partition, or of `finish`, with a working folder of its own."""
        return StageContext(
            self.inputs,
            folder / "out",
            folder / "parts",
            self.scratch,
            self.cluster,
            self.cache,
            self.tombstones,
            self.url,
            self.earlier,
        )

    @property
    def artifact_dir(self) -> ArtifactDir:
        """The artifact's folder."""
        return ArtifactDir(self.url)


@contextmanager
def _working_folder(artifact_dir: ArtifactDir) -> Iterator[Path]:
    # On a file system the folder lies beside the result, so that publishing is a rename.
    parent = None if artifact_dir.remote else Path(artifact_dir.url, "_tmp")
    if parent:
        parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-{uuid.uuid4().hex[:8]}-", dir=parent))
    try:
        (folder / "out").mkdir()
        (folder / "parts").mkdir()
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def planned(job: ArtifactJob) -> list[Partition]:
    """The partitions of the artifact (`Stage.plan`)."""
    with disk_errors_told(*job.folders), _working_folder(job.artifact_dir) as folder:
        return list(job.stage.plan(job.context(folder)))


def run_partition(job: ArtifactJob, partition: Partition) -> dict[str, Any]:
    """Make and commit one partition; returns its report.

    Raises whatever the stage raises; UserError if a disk takes no more, whichever library was writing.
    """
    artifact_dir = job.artifact_dir
    with disk_errors_told(*job.folders), _working_folder(artifact_dir) as folder:
        context = job.context(folder)
        job.stage.run(partition, context)
        parts = artifact_dir.publish(folder / "parts", "_parts/")
        files = artifact_dir.publish(folder / "out")
        counts = dict(sorted(context.counts.items()))
        artifact_dir.commit(partition.id, Commit(files, parts, counts, context.report))
    return context.report


def close(job: ArtifactJob, plan: list[str], identity: Mapping[str, Any], run: Mapping[str, Any]) -> Artifact:
    """Run the stage's `finish` over all commits and seal the artifact with its manifest.

    `identity` (stage, version, config, inputs, fingerprint) goes into the manifest, `run` (start, host, ...) beside it.
    """
    artifact_dir = job.artifact_dir
    files: list[dict[str, Any]] = []
    parts: list[str] = []
    counts: Counter[str] = Counter()
    for commit in artifact_dir.read_commits(plan):
        files += commit.files
        parts += [part["name"] for part in commit.parts]
        counts.update(commit.counts)
    with disk_errors_told(*job.folders), _working_folder(artifact_dir) as folder:
        context = job.context(folder)
        if job.stage.reads_parts_singly:
            context.each_part = lambda pattern: artifact_dir.each(
                (name for name in parts if fnmatch.fnmatchcase(name, pattern)), "_parts/", context.intermediate
            )
        else:
            artifact_dir.fetch(parts, "_parts/", context.intermediate)
        job.stage.finish(context)
        files += artifact_dir.publish(context.out)
    files.sort(key=lambda file: str(file["name"]))
    for one, other in pairwise(files):
        if one["name"] == other["name"]:
            raise RuntimeError(
                f"{job.node}: several partitions wrote {one['name']}; file names must carry the partition id"
            )
    counts.update(context.counts)
    artifact = artifact_dir.seal({**identity, "counts": dict(sorted(counts.items())), "files": files}, run)
    shutil.rmtree(job.scratch, ignore_errors=True)
    return artifact
