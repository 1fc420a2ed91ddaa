"""A three-stage toy pipeline that goes through the real runner, store and Ray."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from pipelines.cluster import ClusterConfig
from pipelines.node import Dag, Node
from pipelines.progress import Progress
from pipelines.runner import Runner, pending
from pipelines.state import Workspace
from pipelines.store import Store
from stages.base.contract import Inputs, Partition, Stage, StageConfig, StageContext


class ToyConfig(StageConfig):
    count: int = 4
    word: str = "a"
    fail_at: str | None = None
    executor: str = "ray_tasks"


def toy_stages() -> dict[str, type[Stage[ToyConfig]]]:
    """Classes made in a function, so that Ray workers get them by value."""

    class Numbers(Stage[ToyConfig]):
        name = "numbers"
        holds_samples = False

        def partitions(self, inputs: Inputs) -> Sequence[Partition]:
            return [Partition(f"{i:05}", {"i": i}) for i in range(self.config.count)]

        def run(self, partition: Partition, context: StageContext) -> None:
            if partition.id == self.config.fail_at:
                raise ValueError(f"partition {partition.id} cannot be made")
            (context.out / f"n-{partition.id}.txt").write_text(self.config.word * (partition.spec["i"] + 1))
            (context.intermediate / f"p-{partition.id}").write_text(str(partition.spec["i"]))
            context.count("rows")

        def finish(self, context: StageContext) -> None:
            numbers = sorted(int(path.read_text()) for path in context.intermediate.iterdir())
            (context.out / "all.txt").write_text(",".join(map(str, numbers)))

    class Upper(Numbers):
        name = "upper"
        executor = "ray_data"

        def run(self, partition: Partition, context: StageContext) -> None:
            text = context.input("numbers").path(f"n-{partition.id}.txt").read_text()
            (context.out / f"u-{partition.id}.txt").write_text(text.upper())
            (context.intermediate / f"p-{partition.id}").write_text(str(partition.spec["i"]))

    class Total(Numbers):
        name = "total"
        executor = "driver"

        def partitions(self, inputs: Inputs) -> Sequence[Partition]:
            return [Partition("all")]

        def run(self, partition: Partition, context: StageContext) -> None:
            (artifact,) = context.inputs["upper"]
            letters = sum(len(artifact.path(name).read_text()) for name in artifact.names("u-*"))
            (context.out / "total.txt").write_text(str(letters))

        def finish(self, context: StageContext) -> None:
            return

    return {"numbers": Numbers, "upper": Upper, "total": Total}


class Silent:
    """A tracker that keeps what it was told (tracking has tests of its own)."""

    invocation = "test"

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args, **kwargs: self.events.append((name, *args))


class Toy:
    """A workspace with the toy DAG; `make` runs what is pending."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.stages = toy_stages()
        self.tracker = Silent()

    def workspace(self, **settings: Any) -> Workspace:
        def config(stage: str) -> ToyConfig:
            return ToyConfig(**{"count": settings.get("count", 4), **settings.get(stage, {})})

        numbers = Node(self.stages["numbers"], "", config("numbers"))
        upper = Node(self.stages["upper"], "", config("upper"), {"numbers": ("numbers",)})
        total = Node(self.stages["total"], "", config("total"), {"upper": ("upper",)})
        dag: Dag = {node.id: node for node in (numbers, upper, total)}
        return Workspace(dag, Store(str(self.root)))

    def make(self, workspace: Workspace, target: str = "total") -> list[str]:
        todo = pending(workspace, [target])
        with Progress() as progress:
            Runner(workspace, ClusterConfig(cpus=2), self.tracker, progress, False).run(todo)  # type: ignore[arg-type]
        return list(todo)


@pytest.fixture
def toy(tmp_path: Path, ray_session: None) -> Toy:
    return Toy(tmp_path / "workspace")
