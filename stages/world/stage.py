"""The world stage: builds a demonstration's own files, so that the pipeline needs no network."""

from __future__ import annotations

from collections.abc import Sequence

from stages.base.contract import Inputs, Partition, Stage, StageContext
from stages.world.config import WorldConfig
from stages.world.plugin import world_class


class World(Stage[WorldConfig]):
    """No inputs; one partition."""

    name = "world"
    version = 3
    holds_samples = False  # its files stand for the outside: nothing in them is a sample before `ingest` lists it

    def partitions(self, inputs: Inputs) -> Sequence[Partition]:
        """The whole world at once: it takes seconds."""
        return [Partition("00000")]

    def run(self, partition: Partition, context: StageContext) -> None:
        """Build it."""
        for name, count in world_class(self.config.kind)().build(context.out, self.config).items():
            context.count(name, count)
