"""The `index` stage: all sources' artifacts joined, range by range, and which pictures are alike."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from stages.base.artifact import Artifact
from stages.base.contract import Inputs, Partition, Stage, StageContext
from stages.base.forgetting import ForgetInputs, Forgotten, Removal
from stages.index.config import IndexConfig


class BuildIndex(Stage[IndexConfig]):
    """Inputs `pairs`, `raw`, `signals` (one of each per source, same order), and what holds files that the benchmarks
    address (`stages/base/external_files.py`)."""

    name = "index"
    version = 2
    executor: ClassVar[Literal["ray_tasks", "ray_data", "driver"]] = "driver"
    holds_samples = True
    sample_tables = ()
    forget_after = ("download",)  # whose tars' offsets the images repeat

    def partitions(self, inputs: Inputs) -> Sequence[Partition]:
        """One: copies can be anywhere."""
        return [Partition("all")]

    def run(self, partition: Partition, context: StageContext) -> None:
        """Write the tables that `stages/index/schema.py` describes, `ranges.json` and `sources.json`."""
        from stages.base.ranges import RANGES, as_json
        from stages.base.tasks import OnRay
        from stages.index.benchmarks import hashed
        from stages.index.build import build, move, planned
        from stages.index.held_out import held_out
        from stages.index.texts import Phrases

        config, tasks = self.config, OnRay()
        benchmarks = {name: held_out(name, where, context.inputs) for name, where in sorted(config.benchmarks.items())}
        held = hashed(tasks, benchmarks, context.cache)
        phrases = Phrases.of(config.ngram, {name: it.texts for name, it in benchmarks.items()})
        folder = os.path.join(context.scratch, "index")
        shutil.rmtree(folder, ignore_errors=True)  # of a run that was stopped, maybe on other inputs
        work = planned(tasks, context.inputs, config, folder)
        tables, counts = build(tasks, work, config, held, phrases)
        move(work, tables, context.out)
        context.counts.update(counts)
        (context.out / RANGES).write_text(json.dumps(as_json(work.ranges)), encoding="utf-8")
        (context.out / "sources.json").write_text(json.dumps(self._sources(context), indent=1), encoding="utf-8")
        shutil.rmtree(folder)

    def _sources(self, context: StageContext) -> list[dict[str, Any]]:
        from stages.base.pairs import is_image_only

        listed: list[dict[str, Any]] = []
        for pairs in context.inputs["pairs"]:
            name = str(pairs.manifest["config"]["name"])
            listed.append({"name": name, "private": name in self.config.private_sources})
            if is_image_only(pairs):
                listed[-1]["image_only"] = True
        return listed

    @classmethod
    def forget(cls, artifact: Artifact, inputs: ForgetInputs, forgotten: Forgotten, out: Path | None) -> Removal:
        """See `stages/index/forget.py`."""
        from stages.index.forget import forget

        return forget(artifact, inputs, forgotten, out)
