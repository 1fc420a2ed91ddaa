"""The `index` stage: what all sources' artifacts say, joined into one table, and which pictures are alike."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from stages.artifact import Artifact
from stages.contract import Inputs, Partition, Stage, Task
from stages.index.config import IndexConfig

if TYPE_CHECKING:
    import pyarrow as pa

    from stages.index.tables import Tables


class BuildIndex(Stage[IndexConfig]):
    """Inputs `pairs`, `raw`, `signals` (one of each per source, same order) and `worlds` (optional)."""

    name = "index"
    placement: ClassVar[Literal["ray_tasks", "ray_data", "driver"]] = "driver"

    def partitions(self, inputs: Inputs) -> Sequence[Partition]:
        """One: copies can be anywhere."""
        return [Partition("all")]

    def run(self, partition: Partition, task: Task) -> None:
        """Write the tables that `stages/index/schema.py` describes, and `sources.json`."""
        from stages.index.benchmarks import hashed
        from stages.index.held_out import held_out
        from stages.index.tables import load, places, write
        from stages.index.texts import Phrases

        config = self.config
        worlds = self._worlds(task.inputs)
        benchmarks = {name: held_out(name, where, worlds) for name, where in sorted(config.benchmarks.items())}
        held = hashed(benchmarks, task.cache)
        phrases = Phrases.of(config.ngram, {name: it.texts for name, it in benchmarks.items()})
        tables = load(places(task.inputs, config), list(config.radius), phrases)
        write(tables.images, task.out / "images.arrow")
        write(tables.pairs, task.out / "pairs.arrow")
        write(tables.texts, task.out / "benchmark-texts.arrow")
        self._count(task, tables)
        self._copies(task, tables, held)
        sources = [str(pairs.manifest["config"]["name"]) for pairs in task.inputs["pairs"]]
        said = [{"name": name, "private": name in config.private_sources} for name in sources]
        (task.out / "sources.json").write_text(json.dumps(said, indent=1), encoding="utf-8")

    def _copies(self, task: Task, tables: Tables, held: pa.Table) -> None:
        """Search near copies, and the benchmarks' images."""
        from stages.index.benchmarks import exact_matches, near_to_benchmarks
        from stages.index.near import Pictures, near_copies
        from stages.index.schema import NEAR
        from stages.index.tables import numbered, write

        config, rows = self.config, tables.rows
        exact = exact_matches(tables.leaders, rows, held)
        write(exact, task.out / "benchmark-exact.arrow")
        task.count("benchmark.exact", exact.num_rows)
        for name, radius in config.radius.items():
            pictures = Pictures.of(tables.leaders, name)
            near = numbered(near_copies(pictures, radius, config.max_near), rows, NEAR)
            write(near, task.out / f"near-{name}.arrow")
            task.count(f"near.{name}", near.num_rows)
            leaked = near_to_benchmarks(pictures, rows, held, radius, config.max_near)
            write(leaked, task.out / f"benchmark-{name}.arrow")
            task.count(f"benchmark.{name}", leaked.num_rows)

    def _count(self, task: Task, tables: Tables) -> None:
        task.count("images", tables.images.num_rows)
        task.count("pairs", tables.pairs.num_rows)
        task.count("pictures", len(tables.rows))
        task.count("benchmark.texts", tables.texts.num_rows)

    def _worlds(self, inputs: Inputs) -> dict[str, Artifact]:
        named = [where.world for where in self.config.benchmarks.values() if where.world is not None]
        return dict(zip(dict.fromkeys(named), inputs.get("worlds", ()), strict=True))
