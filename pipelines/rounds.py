"""How often each source's failed downloads were tried again: the rounds of `run --retry-failed`, kept in the workspace.

Round 0 is the download itself. Every later one is a node of its own, made from the one before, and from then on what
`run` goes on with. Rounds belong to a source as it is configured: another list or other limits start at round 0 again,
and going back to the old ones finds their rounds.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.fingerprint import what
from pipelines.node import Dag, Node, with_ancestors
from pipelines.state import Workspace
from pipelines.store import Place
from stages.artifact import canonical_json
from stages.contract import StageConfig
from stages.download.config import DownloadConfig
from stages.download.outcome import is_transient

FILE = "rounds.json"


@dataclass(frozen=True)
class EarlierRound(Node):
    """A download that a later round of the same source is made from; its artifact lies where it was made."""

    @property
    def id(self) -> str:
        """`download[source@round]`."""
        assert isinstance(self.config, DownloadConfig)
        return f"{self.stage.name}[{self.instance}@{self.config.round}]"


def key(*configs: StageConfig) -> str:
    """What the rounds of one source are kept under: the configs of its ingest and of its download."""
    return hashlib.sha256(canonical_json([what(config) for config in configs]).encode()).hexdigest()[:16]


def newest(workspace: str, key: str) -> int:
    """The round that `run` brings up to date."""
    return _read(workspace).get(key, 0)


def advance(workspace: Workspace, dag: Dag, wanted: Sequence[str]) -> list[str]:
    """Begin another round of every source that the wanted nodes need and that has failures that may pass.

    Returns one line for each, to be shown; a source whose newest round is not finished has nothing to begin.
    """
    begun: dict[str, int] = {}
    told = []
    for node in with_ancestors(dag, wanted):
        artifact = workspace.artifact(node) if isinstance(node.config, DownloadConfig) else None
        if artifact is None or isinstance(node, EarlierRound):
            continue
        assert isinstance(node.config, DownloadConfig)
        reasons = {name.removeprefix("status."): n for name, n in artifact.counts.items() if name.startswith("status.")}
        again = {reason: n for reason, n in reasons.items() if is_transient(reason)}
        if again:
            ingest = dag[node.inputs["pairs"][0]].config
            number = node.config.round + 1
            begun[key(ingest, node.config.model_copy(update={"round": 0}))] = number
            listed = ", ".join(f"{reason} {n:,}" for reason, n in sorted(again.items(), key=lambda i: (-i[1], i[0])))
            told.append(f"{node.id}: round {number} tries {sum(again.values()):,} images again ({listed})")
    if begun:
        store = workspace.store.workspace
        Place(store).write(FILE, json.dumps({**_read(store), **begun}, indent=1, sort_keys=True))
    return told


def _read(workspace: str) -> dict[str, int]:
    text = Place(workspace).read(FILE)
    return dict(json.loads(text)) if text else {}
