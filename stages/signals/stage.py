"""The `signals` stage: writes one row per image and one per pair, with all measured columns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from stages.base.artifact import Artifact
from stages.base.contract import Inputs, Partition, Stage, StageContext, UserError
from stages.base.forgetting import ForgetInputs, Forgotten, Removal
from stages.signals import registry
from stages.signals.config import SignalsConfig

if TYPE_CHECKING:
    import pyarrow as pa

    from stages.signals.cache import ResultCache
    from stages.signals.family import Family


class Signals(Stage[SignalsConfig]):
    """Inputs `pairs` and `raw` of one source; one partition per raw shard.

    Results of each family are cached per shard; only those that are missing are measured, in one pass.
    """

    name = "signals"
    version = 3
    executor: ClassVar[Literal["ray_tasks", "ray_data", "driver"]] = "ray_data"
    holds_samples = True
    sample_tables = ()
    keeps_clean_partitions = True

    def __init__(self, config: SignalsConfig) -> None:
        super().__init__(config)
        self.families: list[Family[Any]] = registry.build(config)
        self._loaded: set[str] = set()

    @property
    def gpus(self) -> float:
        """`signals.gpus` if a family can use a GPU, else 0."""
        return self.config.gpus if any(family.cost.gpu for family in self.families) else 0.0

    def check(self) -> None:
        """Raises UserError if the package or model of a family is missing."""
        for family in self.families:
            family.check()

    def partitions(self, inputs: Inputs) -> Sequence[Partition]:
        """One per `raw-NNNNN.tar`, with its number. Raises UserError if the package or model of a family is missing."""
        self.check()
        (raw,) = inputs["raw"]
        return [Partition(name.removeprefix("raw-").removesuffix(".tar")) for name in raw.names("raw-*.tar")]

    def run(self, partition: Partition, context: StageContext) -> None:
        """Write `images-NNNNN.parquet` and `pairs-NNNNN.parquet`."""
        from stages.signals import tables
        from stages.signals.cache import ResultCache

        pairs, raw = context.input("pairs"), context.input("raw")
        number = partition.id
        attempts = tables.read_fetched(raw.path(f"attempts-{number}.parquet"))
        listed = tables.read_pairs(pairs.path(f"pairs-{number}.parquet"), attempts)
        cache = ResultCache(context.cache, raw, pairs, number)
        results: dict[str, pa.Table] = {}
        for family in self.families:
            if (known := cache.get(family, attempts if family.table == "images" else listed)) is not None:
                results[family.name] = known
        results |= self._measured(results.keys(), attempts, raw.path(f"raw-{number}.tar"), listed, cache)
        images = tables.joined(attempts, self.families, results, "images")
        captions = tables.joined(listed, self.families, results, "pairs")
        tables.write(images, context.out / f"images-{number}.parquet")
        tables.write(captions, context.out / f"pairs-{number}.parquet")
        context.count("images", images.num_rows)
        context.count("undecodable", images["decoded"].to_pylist().count(False))
        context.count("pairs", captions.num_rows)

    def _measured(
        self, known: Any, attempts: pa.Table, tar: Any, listed: pa.Table, cache: ResultCache
    ) -> dict[str, pa.Table]:
        """Measure the families whose results are not known, and cache them."""
        from stages.signals import tables
        from stages.signals.measure import ShardError, measure

        missing = [family for family in self.families if family.name not in known]
        for family in missing:
            # Loaded only when something has to be measured.
            if family.name not in self._loaded:
                family.setup()
                self._loaded.add(family.name)
        if not missing:
            return {}
        try:
            with open(tar, "rb") as shard:
                rows = measure(missing, attempts, shard, listed)
        except ShardError as problem:
            raise UserError(f"signals: {tar.name}: {problem}; run `pairmill run download` again") from None
        results = {}
        for family in missing:
            results[family.name] = tables.columns(family, rows[family.name])
            cache.put(family, attempts if family.table == "images" else listed, results[family.name])
        return results

    @classmethod
    def forget(cls, artifact: Artifact, inputs: ForgetInputs, forgotten: Forgotten, out: Path | None) -> Removal:
        """See `stages/signals/forget.py`."""
        from stages.signals.forget import forget

        return forget(artifact, inputs, forgotten, out)
