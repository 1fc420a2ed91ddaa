"""Where each node of the DAG stands: up to date, partly done, stale and why, or missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pipelines.fingerprint import FileDigests, fingerprint, fingerprinted
from pipelines.node import Dag, Node
from pipelines.store import ArtifactDir, Store
from stages.base.artifact import Artifact, is_remote
from stages.base.contract import StageConfig, UserError
from stages.base.external_files import with_addresses

Standing = Literal["up to date", "partly done", "stale", "missing", "blocked"]


@dataclass(frozen=True)
class NodeState:
    """What is known of one node without running anything."""

    node: Node
    fingerprint: str | None
    """None when a file the node depends on is not there."""
    standing: Standing
    done: int = 0
    """Committed partitions of an unfinished artifact."""
    total: int | None = None
    """All its partitions, where they have been planned."""
    why: str = ""
    """For stale nodes the changed keys and inputs; for blocked ones what is missing."""


def _fingerprint(
    node: Node, config: StageConfig, prints: Mapping[str, tuple[str | None, str]], files: str | None
) -> str:
    inputs = {role: [str(prints[parent][0]) for parent in ids] for role, ids in node.inputs.items()}
    return fingerprint(node.stage.name, node.stage.version, fingerprinted(config), inputs, files)


class Workspace:
    """The DAG compared with what the store holds."""

    def __init__(self, dag: Dag, store: Store) -> None:
        self.dag = dag
        self.store = store
        root = Path(".") if is_remote(store.workspace) else Path(store.workspace)
        self._digests = FileDigests(root / ".cache" / "files.json")

    @cached_property
    def fingerprints(self) -> dict[str, str | None]:
        """Node id -> fingerprint; None where an outside file is missing, and for all that follows from it."""
        return {node_id: print_ for node_id, (print_, _) in self._prints.items()}

    @cached_property
    def _prints(self) -> dict[str, tuple[str | None, str]]:
        prints: dict[str, tuple[str | None, str]] = {}
        for node in self.dag.values():
            lacking = [parent for parent in node.parents() if prints[parent][0] is None]
            if lacking:
                prints[node.id] = (None, f"waits for {lacking[0]}: {prints[lacking[0]][1]}")
                continue
            try:
                outside = node.files()
                files = self._digests.digest(outside, node.files_key) if outside else None
            except UserError as error:
                prints[node.id] = (None, str(error))
                continue
            prints[node.id] = (_fingerprint(node, node.config, prints, files), "")
        return prints

    def fingerprint_with(self, node: Node, config: StageConfig) -> str:
        """The fingerprint that the node would have with another config that names the same outside files."""
        outside = node.files()
        files = self._digests.digest(outside, node.files_key) if outside else None
        return _fingerprint(node, config, self._prints, files)

    def require(self, node: Node) -> str:
        """The node's fingerprint; raises the UserError that says which file is missing."""
        print_, why = self._prints[node.id]
        if print_ is None:
            raise UserError(why)
        return print_

    def lacking(self, targets: Sequence[str]) -> list[UserError]:
        """What is missing of the outside files that the targets and their ancestors depend on: one error per cause."""
        causes: dict[str, UserError] = {}
        stack, visited = list(targets), set()
        while stack:
            node = self.dag[stack.pop()]
            if node.id in visited or self.fingerprints[node.id] is not None:
                continue
            visited.add(node.id)
            blocked = [parent for parent in node.parents() if self.fingerprints[parent] is None]
            stack += blocked
            if not blocked:
                causes[node.id] = UserError(self._prints[node.id][1])
        return [causes[node_id] for node_id in self.dag if node_id in causes]

    def artifact_dir(self, node: Node) -> ArtifactDir:
        """Where the node's artifact is or will be."""
        return self.store.artifact_dir(node.stage.name, node.instance, self.require(node))

    def artifact(self, node: Node) -> Artifact | None:
        """The node's finished artifact, or None."""
        return self.artifact_dir(node).artifact() if self.fingerprints[node.id] else None

    def state(self, node: Node) -> NodeState:
        """Where one node stands."""
        print_, why = self._prints[node.id]
        if print_ is None:
            return NodeState(node, None, "blocked", why=why)
        artifact_dir = self.artifact_dir(node)
        if artifact_dir.artifact():
            return NodeState(node, print_, "up to date")
        plan = artifact_dir.plan()
        because = self.changes(node)
        if plan is not None:
            return NodeState(node, print_, "partly done", len(artifact_dir.committed() & set(plan)), len(plan), because)
        return NodeState(node, print_, "stale" if because else "missing", why=because)

    def states(self) -> list[NodeState]:
        """All nodes, parents before children."""
        return [self.state(node) for node in self.dag.values()]

    def changes(self, node: Node) -> str:
        """What differs between the node as configured and its newest finished artifact; empty when there is none."""
        latest = self.store.latest(node.id)
        if latest is None:
            return ""
        before, now = with_addresses(latest["config"]), with_addresses(fingerprinted(node.config))
        changes = [
            f"{node.config_key(path)}: {_short(old)} → {_short(new)}" for path, old, new in differences(before, now)
        ]
        if latest["version"] != node.stage.version:
            changes.append(f"{node.stage.name} version {latest['version']} → {node.stage.version}")
        for role in dict.fromkeys([*node.inputs, *latest["inputs"]]):
            then: dict[str, str] = dict(latest["inputs"].get(role, []))
            new = {i: str(self.fingerprints[i]) for i in node.inputs.get(role, ())}
            changes += [f"input {i} changed" for i in new if i in then and then[i] != new[i]]
            changes += [f"input {i} is new" for i in new if i not in then]
            changes += [f"input {i} was removed" for i in then if i not in new]
        if not changes and self.fingerprints[node.id] != latest["fingerprint"]:
            changes.append(f"contents of {node.files_key or 'its files'} changed")
        return "; ".join(dict.fromkeys(changes))

    def record(self, node: Node) -> dict[str, Any]:
        """What :meth:`changes` compares with later."""
        return {
            "fingerprint": self.require(node),
            "version": node.stage.version,
            "config": fingerprinted(node.config),
            "inputs": {role: [[i, self.fingerprints[i]] for i in ids] for role, ids in node.inputs.items()},
        }


def differences(old: Any, new: Any, path: str = "") -> list[tuple[str, Any, Any]]:
    """Leaves that differ between two nested configs as (dotted path, old, new); an absent key counts as None."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        leaves = []
        for key in dict.fromkeys([*old, *new]):
            leaves += differences(old.get(key), new.get(key), f"{path}.{key}" if path else str(key))
        return leaves
    return [] if old == new else [(path, old, new)]


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."
