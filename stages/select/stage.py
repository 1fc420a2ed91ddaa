"""The `select` stage: a verdict for every pair, and the data report. It only reads tables; the index did the search."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

from stages.base.artifact import Artifact
from stages.base.contract import Inputs, Partition, Stage, StageContext
from stages.base.forgetting import ForgetInputs, Forgotten, Removal
from stages.select.config import SelectConfig


class Select(Stage[SelectConfig]):
    """Inputs `index`, and `pairs` and `raw` (one of each per source, same order) for the report's captions and
    pictures."""

    name = "select"
    version = 3
    executor: ClassVar[Literal["ray_tasks", "ray_data", "driver"]] = "driver"
    needs_ray = False
    tracked = ("report.html", "report.json", "data_card.md", "tables/*.json")
    holds_samples = True
    sample_tables = ()

    def partitions(self, inputs: Inputs) -> Sequence[Partition]:
        """A single one, since copies can be in any source."""
        return [Partition("all")]

    def run(self, partition: Partition, context: StageContext) -> None:
        """Write `verdicts.parquet`, `contamination.parquet` and the report."""
        import pyarrow.parquet as pq

        from stages.base.tombstones import Tombstones
        from stages.index.reader import Index
        from stages.select.forgotten import forgotten_pairs
        from stages.select.report.figures import figures
        from stages.select.report.page import write
        from stages.select.verdict import decide

        index = Index(context.input("index"))
        tombstones = Tombstones.load(context.tombstones)
        forgotten = forgotten_pairs(index, context.inputs, tombstones) if tombstones else None
        decision = decide(index, self.config, forgotten)
        settings = {"compression": "zstd", "row_group_size": 65_536}
        pq.write_table(decision.verdicts(), context.out / "verdicts.parquet", **settings)
        pq.write_table(decision.contamination(), context.out / "contamination.parquet", **settings)
        write(decision, figures(decision, self.config), self.config, context.inputs, context.out)
        counts = decision.counts()
        context.count("pairs", len(decision.code))
        context.count("kept", counts.pop("", 0))
        for reason, pairs in sorted(counts.items()):
            context.count(f"dropped.{reason}", pairs)
        context.count("shown", int(decision.repeats.sum()))

    @classmethod
    def forget(cls, artifact: Artifact, inputs: ForgetInputs, forgotten: Forgotten, out: Path | None) -> Removal:
        """See `stages/select/forget.py`."""
        from stages.select.forget import forget

        return forget(artifact, inputs, forgotten, out)
