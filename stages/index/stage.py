"""The `index` stage: all sources' artifacts joined into one table, and which pictures are alike."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from stages.base.artifact import Artifact
from stages.base.contract import Inputs, Partition, Stage, StageContext
from stages.base.forgetting import ForgetInputs, Forgotten, Removal
from stages.index.config import IndexConfig

if TYPE_CHECKING:
    import pyarrow as pa

    from stages.index.tables import Tables


class BuildIndex(Stage[IndexConfig]):
    """Inputs `pairs`, `raw`, `signals` (one of each per source, same order), and what holds files that the benchmarks
    address (`stages/base/external_files.py`)."""

    name = "index"
    executor: ClassVar[Literal["ray_tasks", "ray_data", "driver"]] = "driver"
    holds_samples = True
    sample_tables = ()
    forget_after = ("download",)  # whose tars' offsets `images.arrow` repeats

    def partitions(self, inputs: Inputs) -> Sequence[Partition]:
        """One: copies can be anywhere."""
        return [Partition("all")]

    def run(self, partition: Partition, context: StageContext) -> None:
        """Write the tables that `stages/index/schema.py` describes, and `sources.json`."""
        from stages.base.pairs import is_image_only
        from stages.index.benchmarks import hashed
        from stages.index.held_out import held_out
        from stages.index.tables import load, shard_inputs, write
        from stages.index.texts import Phrases

        config = self.config
        benchmarks = {name: held_out(name, where, context.inputs) for name, where in sorted(config.benchmarks.items())}
        held = hashed(benchmarks, context.cache)
        phrases = Phrases.of(config.ngram, {name: it.texts for name, it in benchmarks.items()})
        tables = load(shard_inputs(context.inputs, config), list(config.search_radius), phrases)
        write(tables.images, context.out / "images.arrow")
        write(tables.pairs, context.out / "pairs.arrow")
        write(tables.texts, context.out / "benchmark-texts.arrow")
        self._count(context, tables)
        self._copies(context, tables, held)
        listed: list[dict[str, Any]] = []
        for pairs in context.inputs["pairs"]:
            name = str(pairs.manifest["config"]["name"])
            listed.append({"name": name, "private": name in config.private_sources})
            if is_image_only(pairs):
                listed[-1]["image_only"] = True
        (context.out / "sources.json").write_text(json.dumps(listed, indent=1), encoding="utf-8")

    def _copies(self, context: StageContext, tables: Tables, held: pa.Table) -> None:
        """Search near copies, and the benchmarks' images."""
        from stages.index.benchmarks import exact_matches, near_to_benchmarks
        from stages.index.near import Pictures, near_copies
        from stages.index.schema import NEAR
        from stages.index.tables import numbered, write

        config, rows = self.config, tables.rows
        exact = exact_matches(tables.leaders, rows, held)
        write(exact, context.out / "benchmark-exact.arrow")
        context.count("benchmark.exact", exact.num_rows)
        for name, radius in config.search_radius.items():
            pictures = Pictures.of(tables.leaders, name)
            near = numbered(near_copies(pictures, radius, config.max_near), rows, NEAR)
            write(near, context.out / f"near-{name}.arrow")
            context.count(f"near.{name}", near.num_rows)
            leaked = near_to_benchmarks(pictures, rows, held, radius, config.max_near)
            write(leaked, context.out / f"benchmark-{name}.arrow")
            context.count(f"benchmark.{name}", leaked.num_rows)

    def _count(self, context: StageContext, tables: Tables) -> None:
        context.count("images", tables.images.num_rows)
        context.count("pairs", tables.pairs.num_rows)
        context.count("pictures", len(tables.rows))
        context.count("benchmark.texts", tables.texts.num_rows)

    @classmethod
    def forget(cls, artifact: Artifact, inputs: ForgetInputs, forgotten: Forgotten, out: Path | None) -> Removal:
        """See `stages/index/forget.py`."""
        from stages.index.forget import forget

        return forget(artifact, inputs, forgotten, out)
