"""The `select` stage: a verdict for every pair, and the data report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from stages.artifact import Artifact
from stages.contract import Inputs, Partition, Stage, Task
from stages.select.config import SelectConfig


class Select(Stage[SelectConfig]):
    """Inputs `pairs`, `raw`, `signals` (one of each per source, same order) and `worlds` (optional)."""

    name = "select"
    placement: ClassVar[Literal["ray_tasks", "ray_data", "driver"]] = "driver"
    tracked = ("report.html", "report.json")

    def partitions(self, inputs: Inputs) -> Sequence[Partition]:
        """One: copies can be anywhere."""
        return [Partition("all")]

    def run(self, partition: Partition, task: Task) -> None:
        """Write `verdicts.parquet`, `report.html` and `report.json`."""
        import pyarrow.parquet as pq

        from stages.select.report.figures import figures
        from stages.select.report.page import write
        from stages.select.tables import load
        from stages.select.verdict import decide

        tables = load(task.inputs, self.config.selection.rules)
        decision = decide(tables, self.config, self._worlds(task.inputs))
        verdicts = decision.verdicts()
        pq.write_table(verdicts, task.out / "verdicts.parquet", compression="zstd", row_group_size=65_536)
        numbers = figures(decision, self.config)
        write(decision, numbers, self.config, task.inputs, task.out)
        totals = numbers["totals"]
        task.count("pairs", totals["pairs"])
        task.count("kept", totals["kept_pairs"])
        for reason, pairs in totals["reasons"].items():
            task.count(f"dropped.{reason}", pairs)

    def _worlds(self, inputs: Inputs) -> dict[str, Artifact]:
        named = [where.world for where in self.config.benchmarks.values() if where.world is not None]
        return dict(zip(dict.fromkeys(named), inputs.get("worlds", ()), strict=True))
