"""Retry passes: how often `run --retry-failed` went over the failed downloads of each source, kept in the workspace.

Pass 0 is the download itself. Every later pass is a node of its own, made from the one before, and from then on the
one that `run` brings up to date. Passes belong to a source as it is configured: another list or other limits start at
pass 0 again, and going back to the old ones finds their passes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.fingerprint import fingerprinted
from pipelines.node import Dag, Node, with_ancestors
from pipelines.state import Workspace
from pipelines.store import ArtifactDir
from stages.base.artifact import canonical_json
from stages.base.contract import StageConfig
from stages.download.config import DownloadConfig
from stages.download.outcome import is_transient

#: In the workspace: key of a source -> its newest pass. Named when passes were called rounds; workspaces keep it.
FILE = "rounds.json"


@dataclass(frozen=True)
class EarlierPass(Node):
    """A download that a later pass of the same source is made from; its artifact lies where it was made."""

    @property
    def id(self) -> str:
        """`download[source@pass]`."""
        assert isinstance(self.config, DownloadConfig)
        return f"{self.stage.name}[{self.instance}@{self.config.retry_pass}]"


def key(*configs: StageConfig) -> str:
    """What the passes of one source are kept under: the configs of its ingest and of its download."""
    return hashlib.sha256(canonical_json([fingerprinted(config) for config in configs]).encode()).hexdigest()[:16]


def newest(workspace: str, key: str) -> int:
    """Number of the pass that `run` brings up to date."""
    return _read(workspace).get(key, 0)


def advance(workspace: Workspace, dag: Dag, targets: Sequence[str]) -> list[str]:
    """Begin another pass over every source that the target nodes need and that has transient failures.

    Returns one line for each, to be shown; a source whose newest pass is not finished has nothing to begin.
    """
    begun: dict[str, int] = {}
    lines = []
    for node in with_ancestors(dag, targets):
        artifact = workspace.artifact(node) if isinstance(node.config, DownloadConfig) else None
        if artifact is None or isinstance(node, EarlierPass):
            continue
        assert isinstance(node.config, DownloadConfig)
        reasons = {name.removeprefix("status."): n for name, n in artifact.counts.items() if name.startswith("status.")}
        again = {reason: n for reason, n in reasons.items() if is_transient(reason)}
        if again:
            ingest = dag[node.inputs["pairs"][0]].config
            number = node.config.retry_pass + 1
            begun[key(ingest, node.config.model_copy(update={"retry_pass": 0}))] = number
            listed = ", ".join(f"{reason} {n:,}" for reason, n in sorted(again.items(), key=lambda i: (-i[1], i[0])))
            lines.append(f"{node.id}: retry pass {number} fetches {sum(again.values()):,} images again ({listed})")
    if begun:
        store = workspace.store.workspace
        ArtifactDir(store).write(FILE, json.dumps({**_read(store), **begun}, indent=1, sort_keys=True))
    return lines


def _read(workspace: str) -> dict[str, int]:
    text = ArtifactDir(workspace).read(FILE)
    return dict(json.loads(text)) if text else {}
