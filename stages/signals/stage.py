"""The `signals` stage: one row per image and one per pair, of everything that was measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from stages.contract import Inputs, Partition, Stage, Task, UserError
from stages.signals.config import SignalsConfig

if TYPE_CHECKING:
    from stages.signals.measure import Measurer


class Signals(Stage[SignalsConfig]):
    """Inputs `pairs` and `raw` of one source; one partition per raw shard."""

    name = "signals"
    placement: ClassVar[Literal["ray_tasks", "ray_data", "driver"]] = "ray_data"

    def __init__(self, config: SignalsConfig) -> None:
        super().__init__(config)
        self._measurer: Measurer | None = None

    def partitions(self, inputs: Inputs) -> Sequence[Partition]:
        """One per `raw-NNNNN.tar`, with its number."""
        (raw,) = inputs["raw"]
        return [Partition(name.removeprefix("raw-").removesuffix(".tar")) for name in raw.names("raw-*.tar")]

    def setup(self) -> None:
        """Load the language model."""
        from stages.signals.measure import Measurer

        self._measurer = Measurer()

    def run(self, partition: Partition, task: Task) -> None:
        """Write `images-NNNNN.parquet` and `pairs-NNNNN.parquet`."""
        from stages.signals import tables

        if self._measurer is None:
            self.setup()
        assert self._measurer is not None
        pairs, raw = task.input("pairs"), task.input("raw")
        number = partition.id
        attempts = tables.fetched(raw.path(f"attempts-{number}.parquet"))
        try:
            with open(raw.path(f"raw-{number}.tar"), "rb") as shard:
                images = tables.images(attempts, shard, self._measurer)
        except tables.ShardError as problem:
            raise UserError(f"signals: raw-{number}.tar: {problem}; run `pairmill run download` for it again") from None
        captions = tables.pairs(pairs.path(f"pairs-{number}.parquet"), images, self._measurer)
        tables.write(images, task.out / f"images-{number}.parquet")
        tables.write(captions, task.out / f"pairs-{number}.parquet")
        task.count("images", images.num_rows)
        task.count("undecodable", images.num_rows - images["decoded"].to_pylist().count(True))
        task.count("pairs", captions.num_rows)
