"""A node of the DAG: one artifact to be, with its stage, config and inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stages.base.contract import Stage, StageConfig

#: Files and folders; by a name that tells them apart, where each has a purpose of its own.
OutsideFiles = Sequence[str] | Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Node:
    """One artifact to be: a stage with its config, and the nodes that fill its input roles."""

    stage: type[Stage[Any]]
    instance: str
    """Which one of the stage: the name of a source, a model or the like, `model/task`, `model/benchmark`, or empty."""
    config: StageConfig
    inputs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Role -> node ids."""
    files: Callable[[], OutsideFiles] = tuple
    """Lists files and folders from outside the workspace whose contents the result depends on; may raise UserError."""
    files_key: str = ""
    """Config key that names them, for error messages."""

    @property
    def id(self) -> str:
        """`stage[instance]`."""
        return f"{self.stage.name}[{self.instance}]" if self.instance else self.stage.name

    def config_key(self, path: str) -> str:
        """The full config key, as a user would override it, of a field of the node's config (dotted path)."""
        stage, name = self.stage.name, self.instance.rsplit("/", 1)[-1]
        head, _, rest = path.partition(".")
        root = _ROOTS.get((stage, head))
        if root is not None:
            return f"{root.format(name)}.{rest}"
        root = _ROOTS.get((stage, ""), stage).format(name)
        return f"{root}.{path}" if root else path

    def parents(self) -> list[str]:
        """Ids of all inputs, in order, each once."""
        return list(dict.fromkeys(parent for role in self.inputs.values() for parent in role))


Dag = dict[str, Node]

#: (Stage, first part of a path in its config) -> the key in the run's config; with an empty path of everything else,
#: where that is not the stage's name. `{}` stands for the last part of the instance's name.
_ROOTS: Mapping[tuple[str, str], str] = {
    ("world", ""): "worlds.{}",
    ("ingest", "source"): "sources.{}",
    ("download", "source"): "sources.{}",
    ("index", "benchmarks"): "held_out",
    ("select", ""): "",
    ("pretrain", ""): "",
    ("finetune", "task"): "tasks.{}",
    ("evaluate", "benchmark"): "benchmarks.{}",
}


def with_ancestors(dag: Dag, targets: Sequence[str]) -> list[Node]:
    """The target nodes and all that they are made from, parents before children."""
    needed: set[str] = set()
    stack = list(targets)
    while stack:
        node_id = stack.pop()
        if node_id not in needed:
            needed.add(node_id)
            stack.extend(dag[node_id].parents())
    return [node for node in dag.values() if node.id in needed]
