"""Which artifacts of a workspace were made from which, and which models were trained on them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from graphlib import TopologicalSorter
from typing import Any

from pipelines.dag import STAGES
from pipelines.store import ArtifactDir, Store
from pipelines.tracking.tracker import TRACKING_RECORD, model_name
from stages.base.artifact import MANIFEST, Artifact, is_remote
from stages.base.contract import Stage


@dataclass(frozen=True)
class Model:
    """A trained model of the workspace."""

    node: str
    artifact: Artifact
    key: str | None
    """The key of its MLflow run (tag `pairmill.key`); None if it was not tracked."""
    registered: str
    """Name of the registered model."""


class Lineage:
    """All finished artifacts of a workspace, of any configuration, linked by their manifests."""

    def __init__(self, store: Store, stages: Sequence[type[Stage[Any]]] = STAGES) -> None:
        self.store = store
        self.stages = {stage.name: stage for stage in stages}
        """Name -> stage of the pipeline; the workspace may hold artifacts of others."""

    @cached_property
    def artifact_dirs(self) -> list[ArtifactDir]:
        """Every artifact's folder, finished or not, sorted by stage and name."""
        return artifact_dirs(self.store)

    @cached_property
    def by_fingerprint(self) -> dict[str, Artifact]:
        """Fingerprint -> finished artifact."""
        found = [artifact for artifact_dir in self.artifact_dirs if (artifact := artifact_dir.artifact()) is not None]
        return {artifact.fingerprint: artifact for artifact in found}

    def of_stage(self, stage: str) -> list[Artifact]:
        """The finished artifacts of a stage, sorted by folder."""
        return [artifact for artifact in self.by_fingerprint.values() if artifact.manifest["stage"] == stage]

    def inputs(self, artifact: Artifact, role: str) -> list[Artifact | None]:
        """The artifacts of an input role; None for one that no longer exists."""
        return [self.by_fingerprint.get(mark) for mark in artifact.manifest["inputs"].get(role, ())]

    def earlier(self, artifact: Artifact, role: str) -> list[Artifact]:
        """The artifact and those that it continues through a role, oldest first (retry passes of a download)."""
        chain = [artifact]
        while found := [a for a in self.inputs(chain[0], role) if a is not None]:
            chain.insert(0, found[0])
        return chain

    def descendants(self, fingerprints: Iterable[str]) -> list[Artifact]:
        """All artifacts made from these, directly or not; parents before children."""
        parents = {
            mark: {p for role in artifact.manifest["inputs"].values() for p in role}
            for mark, artifact in self.by_fingerprint.items()
        }
        reached, ordered = set(fingerprints), []
        for mark in TopologicalSorter(parents).static_order():
            if mark in parents and parents[mark] & reached:
                reached.add(mark)
                ordered.append(self.by_fingerprint[mark])
        return ordered

    def models(self, shards: Iterable[str]) -> list[Model]:
        """Models trained on these `shard` artifacts, and those made from such models."""
        models = {name for name, stage in self.stages.items() if stage.registers}
        return [_model(a) for a in self.descendants(shards) if a.manifest["stage"] in models]


def artifact_dirs(store: Store) -> list[ArtifactDir]:
    """Folders below `<workspace>/artifacts`."""
    root = store.tombstones.rsplit("/", 1)[0] + "/artifacts"
    if is_remote(root):
        import fsspec

        files, path = fsspec.core.url_to_fs(root)
        if not files.exists(path):
            return []
        names = [n for stage in files.ls(path, detail=False) for n in files.ls(stage, detail=False)]
        return [ArtifactDir(files.unstrip_protocol(name)) for name in sorted(names)]
    if not os.path.isdir(root):
        return []
    found = [(stage.name, entry.name) for stage in _folders(root) for entry in _folders(stage.path)]
    return [ArtifactDir(f"{root}/{stage}/{name}") for stage, name in sorted(found)]


def _folders(path: str) -> list[os.DirEntry[str]]:
    with os.scandir(path) as entries:
        return [entry for entry in entries if entry.is_dir()]


def stage_of(artifact_dir: ArtifactDir) -> str:
    """The stage whose artifact a folder holds or will hold."""
    return artifact_dir.url.rstrip("/").rsplit("/", 2)[-2]


def tracking_record(artifact: Artifact) -> dict[str, Any] | None:
    """The tracking record beside an artifact (see `pipelines/tracking/tracker.py`)."""
    text = ArtifactDir(artifact.url).read(TRACKING_RECORD)
    return json.loads(text) if text else None


def started(artifact: Artifact) -> str:
    """When the run that made an artifact started (ISO 8601, UTC); empty if not recorded."""
    text = ArtifactDir(artifact.url).read("run.json")
    return str(json.loads(text).get("started", "")) if text else ""


def _model(artifact: Artifact) -> Model:
    record = tracking_record(artifact)
    node = str(artifact.manifest.get("node", artifact.manifest["stage"]))
    return Model(node, artifact, record["key"] if record else None, model_name(node))


def find(artifacts: Sequence[Artifact], which: str) -> list[Artifact]:
    """The artifacts whose fingerprint starts with `which`, or the one in the folder or at the URL `which`."""
    if os.path.exists(os.path.join(which, MANIFEST)) or is_remote(which):
        return [Artifact(which.rstrip("/"))]
    return [artifact for artifact in artifacts if artifact.fingerprint.startswith(which.lower())]
