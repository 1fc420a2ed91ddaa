"""The steps of `pairmill forget`, in an order that makes a kill at any moment harmless.

1. Tombstones, so that no later run brings a sample back.
2. A plan of uids, so that running the command again completes it even where nothing can be looked up any more.
3. Finished artifacts, one by one, in the order that their stages declare.
4. What lies outside finished artifacts.
5. MLflow.
6. The plan is deleted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from pipelines.dag import STAGES
from pipelines.forgetting import leftovers
from pipelines.forgetting.forget_list import ForgetList
from pipelines.forgetting.plan import ForgetPlan, Scope, resolve
from pipelines.forgetting.swap import complete, replace_files, staging
from pipelines.lineage import Lineage, Model, stage_of
from pipelines.store import ArtifactDir, Store
from stages.base.artifact import Artifact, is_remote
from stages.base.contract import Stage
from stages.base.forgetting import Removal
from stages.base.tombstones import Tombstones


@dataclass
class ForgetResult:
    """What was done, or would be in a dry run."""

    plan: ForgetPlan
    removals: list[tuple[Artifact, Removal]] = field(default_factory=list)
    models: list[tuple[Model, int]] = field(default_factory=list)
    """Models that saw forgotten samples, and how many of them their shards have lost in all."""
    partitions: int = 0
    """Dropped partitions of unfinished artifacts; the next run makes them again."""
    cache_entries: int = 0
    """Removed cache entries."""
    pages: int = 0
    """Pages of `pairmill report` that lost a picture."""


def forget(
    store: Store,
    entries: ForgetList,
    scratch: str | None,
    dry_run: bool,
    on_done: Callable[[ForgetResult], None] | None = None,
    stages: Sequence[type[Stage[Any]]] = STAGES,
) -> ForgetResult:
    """Remove the samples that a list names from a workspace. `on_done` is called with the result before the plan is
    deleted.

    Raises UserError, before anything is changed, when an artifact of the workspace is being made by another run or is
    of a stage that is not in the pipeline.
    """
    order = forget_order(stages)
    lineage = Lineage(store, stages)
    leftovers.refuse_unknown_stages(store, lineage.artifact_dirs, scratch, lineage.stages)
    with ExitStack() as locks:
        if not dry_run:
            for artifact_dir in lineage.artifact_dirs:
                locks.enter_context(artifact_dir.lock())
            for artifact_dir in lineage.artifact_dirs:
                if artifact_dir.artifact() is not None:
                    complete(artifact_dir)
            _add_tombstones(store, entries.tombstones())
        plan = resolve(lineage, entries)
        unfinished = ForgetPlan.load(store)
        plan = plan.merged(unfinished) if unfinished else plan
        result = ForgetResult(plan)
        if not dry_run:
            # By now the address of each forgotten content is known: neither may come back.
            _add_tombstones(store, Tombstones(images=frozenset(plan.images)))
            plan.save(store)
        scope = Scope(lineage, plan)
        artifacts = [(stage, artifact) for stage in order for artifact in lineage.of_stage(stage.name)]
        if not dry_run:
            for stage, artifact in artifacts:
                plan.digests |= _digests_with_samples(lineage, stage, artifact, scope)
            plan.save(store)
        for stage, artifact in artifacts:
            removal = _forget_in(lineage, stage, artifact, scope, dry_run)
            if removal:
                result.removals.append((artifact, removal))
        for artifact_dir in lineage.artifact_dirs:
            if artifact_dir.artifact() is None and (known := lineage.stages.get(stage_of(artifact_dir))):
                result.partitions += leftovers.drop_partitions(artifact_dir, known, plan, entries, dry_run)
        result.cache_entries = leftovers.drop_cache_entries(store, plan, entries, dry_run)
        if not is_remote(store.workspace):
            result.pages = leftovers.blank_pages(Path(store.tombstones).parent / "reports", plan, dry_run)
        result.models = _models(lineage, result)
        if not dry_run:
            leftovers.clear_scratch(store, scratch, lineage.stages, plan, entries)
            if on_done is not None:
                on_done(result)
            ForgetPlan.delete(store)
    return result


def forget_order(stages: Sequence[type[Stage[Any]]]) -> list[type[Stage[Any]]]:
    """The stages that hold samples, each after those it names in `forget_after` and before those in `forget_before`;
    otherwise in the order given.

    Raises ValueError for a name that is none of these stages, and for declarations that contradict one another.
    """
    holding = {stage.name: stage for stage in stages if stage.holds_samples}
    before: dict[str, set[str]] = {name: set() for name in holding}
    for stage in holding.values():
        for key in ("forget_before", "forget_after"):
            for other in getattr(stage, key):
                if other not in holding:
                    raise ValueError(f"stage {stage.name}: {key} names {other!r}, which is no stage that holds samples")
                first, second = (stage.name, other) if key == "forget_before" else (other, stage.name)
                before[second].add(first)
    sorter = TopologicalSorter(before)
    try:
        sorter.prepare()
    except CycleError as error:
        raise ValueError(f"forget_before and forget_after form a cycle: {' → '.join(error.args[1])}") from None
    ordered: list[str] = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready(), key=list(holding).index)
        ordered += ready
        sorter.done(*ready)
    return [holding[name] for name in ordered]


def _add_tombstones(store: Store, more: Tombstones) -> None:
    folder, _, name = store.tombstones.rpartition("/")
    ArtifactDir(folder).write(name, (Tombstones.load(store.tombstones) | more).to_json())


def _digests_with_samples(lineage: Lineage, stage: type[Stage[Any]], artifact: Artifact, scope: Scope) -> set[str]:
    """sha256 of the files of an artifact, as they are now, that hold a forgotten sample: caches may be made of them."""
    removal = _forget_in(lineage, stage, artifact, scope, dry_run=True)
    names = {*removal.rewritten, *removal.deleted}
    return {entry["sha256"] for entry in artifact.manifest["files"] if entry["name"] in names}


def _forget_in(lineage: Lineage, stage: type[Stage[Any]], artifact: Artifact, scope: Scope, dry_run: bool) -> Removal:
    inputs = {role: lineage.inputs(artifact, role) for role in artifact.manifest["inputs"]}
    forgotten = scope.forgotten_in(artifact)
    # Counted before anything is written: most artifacts are not concerned.
    removal = stage.forget(artifact, inputs, forgotten, None)
    if removal and not dry_run:
        with staging(ArtifactDir(artifact.url)) as folder:
            removal = stage.forget(artifact, inputs, forgotten, folder)
            replace_files(artifact, removal, folder)
    return removal


def _models(lineage: Lineage, result: ForgetResult) -> list[tuple[Model, int]]:
    """Counts are read again: the manifests have just changed."""
    removed = {artifact.fingerprint: removal.samples for artifact, removal in result.removals}
    models: dict[str, tuple[Model, int]] = {}
    for shard, samples in sorted(result.plan.shards.items()):
        if shard not in lineage.by_fingerprint:
            continue
        manifest = Artifact(lineage.by_fingerprint[shard].url).manifest
        total = manifest.get("forgotten", 0) or removed.get(shard, samples)
        for model in lineage.models([shard]):
            before = models.get(model.artifact.fingerprint, (model, 0))[1]
            models[model.artifact.fingerprint] = (model, before + total)
    return list(models.values())


def label(artifact: Artifact) -> str:
    """An artifact as the tables name it: its node, and the digits of its folder."""
    node = artifact.manifest.get("node", stage_of(ArtifactDir(artifact.url)))
    return f"{node} {artifact.fingerprint[:12]}"
