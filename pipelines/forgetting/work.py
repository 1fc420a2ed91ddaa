"""The work of `pairmill forget`, in the order that makes a kill at any moment harmless.

Tombstones first, so that no later run brings a sample back; then a plan of uids, so that running the command again
finishes even where nothing is found any more; then artifact by artifact (consumers of positions before the files that
define them: tokens before shards, the index after the raw shards whose offsets it repeats); then what lies outside
artifacts; then MLflow; and at last the plan is removed.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.forgetting import remains
from pipelines.forgetting.plan import Plan, Scope, resolve
from pipelines.forgetting.swap import finish, staging, swap
from pipelines.forgetting.wanted import Wanted
from pipelines.lineage import Lineage, Model, stage_of
from pipelines.store import ArtifactDir, Store
from stages.base.artifact import Artifact, is_remote
from stages.base.forgetting import Forget, Taken
from stages.base.tombstones import Tombstones

#: Every stage whose artifacts hold samples, in the order they are rewritten; each has a module `forget`.
ORDER = ("tokens", "shard", "ingest", "download", "signals", "index", "select")


@dataclass
class Outcome:
    """What was done, or with a dry run would be."""

    plan: Plan
    taken: list[tuple[Artifact, Taken]] = field(default_factory=list)
    models: list[tuple[Model, int]] = field(default_factory=list)
    """Models that saw forgotten samples, and how many of them their shards have lost in all."""
    partitions: int = 0
    """Partitions of unfinished artifacts that will be made again."""
    cached: int = 0
    """Cache entries removed."""
    pages: int = 0
    """Pages of `pairmill report` that lost a picture."""


def forget(
    store: Store, wanted: Wanted, scratch: str | None, dry_run: bool, tell: Callable[[Outcome], None] | None = None
) -> Outcome:
    """Forget what a list asks for. `tell` is called with all that was done, before the plan is removed.

    Raises UserError when an artifact of the workspace is being made by another run.
    """
    lineage = Lineage(store)
    with ExitStack() as held:
        if not dry_run:
            for artifact_dir in lineage.artifact_dirs:
                held.enter_context(artifact_dir.lock())
            for artifact_dir in lineage.artifact_dirs:
                if artifact_dir.artifact() is not None:
                    finish(artifact_dir)
            _remember(store, wanted.tombstones())
        plan = resolve(lineage, wanted)
        unfinished = Plan.unfinished(store)
        plan = plan.merged(unfinished) if unfinished else plan
        outcome = Outcome(plan)
        if not dry_run:
            # An address is known by now for each forgotten content: neither is to come back.
            _remember(store, Tombstones(images=frozenset(plan.images)))
            plan.save(store)
        scope = Scope(lineage, plan)
        if not dry_run:
            plan.digests |= _digests(lineage, scope)
            plan.save(store)
        for stage in ORDER:
            for artifact in lineage.of_stage(stage):
                taken = _take(lineage, artifact, scope, dry_run)
                if taken:
                    outcome.taken.append((artifact, taken))
        for artifact_dir in lineage.artifact_dirs:
            if artifact_dir.artifact() is None:
                outcome.partitions += remains.drop_unfinished(artifact_dir, plan, wanted, dry_run)
        outcome.cached = remains.drop_cached(store, plan, wanted, dry_run)
        if not is_remote(store.workspace):
            outcome.pages = remains.blank_reports(Path(store.tombstones).parent / "reports", plan, dry_run)
        outcome.models = _models(lineage, outcome)
        if not dry_run:
            remains.drop_scratch(store, scratch, plan, wanted)
            if tell is not None:
                tell(outcome)
            Plan.done(store)
    return outcome


def _remember(store: Store, more: Tombstones) -> None:
    folder, _, name = store.tombstones.rpartition("/")
    ArtifactDir(folder).write(name, (Tombstones.load(store.tombstones) | more).to_json())


def _digests(lineage: Lineage, scope: Scope) -> set[str]:
    """sha256 of the files, as they are now, that signals were or will be measured from and that hold a sample."""
    found = set()
    for artifact in [a for stage in ("ingest", "download") for a in lineage.of_stage(stage)]:
        files = set(_handler(artifact)(artifact, {}, scope.of(artifact), None).files)
        found |= {entry["sha256"] for entry in artifact.manifest["files"] if entry["name"] in files}
    return found


def _handler(artifact: Artifact) -> Forget:
    module = importlib.import_module(f"stages.{artifact.manifest['stage']}.forget")
    handler: Forget = module.forget
    return handler


def _take(lineage: Lineage, artifact: Artifact, scope: Scope, dry_run: bool) -> Taken:
    handler = _handler(artifact)
    inputs = {role: lineage.inputs(artifact, role) for role in artifact.manifest["inputs"]}
    gone = scope.of(artifact)
    # Counted before anything is written: most artifacts are not concerned.
    taken = handler(artifact, inputs, gone, None)
    if taken and not dry_run:
        with staging(ArtifactDir(artifact.url)) as folder:
            taken = handler(artifact, inputs, gone, folder)
            swap(artifact, taken, folder)
    return taken


def _models(lineage: Lineage, outcome: Outcome) -> list[tuple[Model, int]]:
    """Counts are read anew: the manifests have just changed."""
    taken = {artifact.fingerprint: taken.samples for artifact, taken in outcome.taken}
    found: dict[str, tuple[Model, int]] = {}
    for shard, samples in sorted(outcome.plan.shards.items()):
        if shard not in lineage.by_fingerprint:
            continue
        manifest = Artifact(lineage.by_fingerprint[shard].url).manifest
        total = manifest.get("forgotten", 0) or taken.get(shard, samples)
        for model in lineage.models([shard]):
            before = found.get(model.artifact.fingerprint, (model, 0))[1]
            found[model.artifact.fingerprint] = (model, before + total)
    return list(found.values())


def label(artifact: Artifact) -> str:
    """An artifact as the tables name it: its node, and the digits of its folder."""
    node = artifact.manifest.get("node", stage_of(ArtifactDir(artifact.url)))
    return f"{node} {artifact.fingerprint[:12]}"
