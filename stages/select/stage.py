"""The `select` stage: a verdict for every pair, and the data report. It only reads tables; the index did the search."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from stages.base.artifact import Artifact
from stages.base.contract import Inputs, Partition, Stage, StageContext
from stages.base.forgetting import ForgetInputs, Forgotten, Removal
from stages.base.ranges import RANGES
from stages.base.verdicts import verdict_file
from stages.select.config import SelectConfig

if TYPE_CHECKING:
    from stages.select.decision import Decision

_SETTINGS = {"compression": "zstd", "row_group_size": 65_536}
#: Ranges up to which one process is faster than starting Ray.
_FEW = 4


class Select(Stage[SelectConfig]):
    """Inputs `index`, and `pairs` and `raw` (one of each per source, same order) for the report's captions and
    pictures."""

    name = "select"
    version = 4
    executor: ClassVar[Literal["ray_tasks", "ray_data", "driver"]] = "driver"
    tracked = ("report.html", "report.json", "data_card.md", "tables/*.json")
    holds_samples = True
    sample_tables = ()

    def partitions(self, inputs: Inputs) -> Sequence[Partition]:
        """A single one, since copies can be in any source. Its work is divided by the ranges of the index."""
        return [Partition("all")]

    def needs_ray(self, inputs: Inputs | None) -> bool:
        """If the index has more than a few ranges. One that is still to be made starts Ray itself."""
        return inputs is not None and len(inputs["index"][0].read_json(RANGES)) > _FEW

    def run(self, partition: Partition, context: StageContext) -> None:
        """Write `verdicts-*.parquet`, `contamination-*.parquet`, `ranges.json` and the report."""
        from stages.base.tasks import InProcess, OnRay, Tasks
        from stages.base.tombstones import Tombstones
        from stages.index.reader import Index
        from stages.select.job import Job, Passes
        from stages.select.report.figures import figures
        from stages.select.report.page import write
        from stages.select.verdict import decide

        # Artifacts without their manifests: every task gets its own copy.
        inputs = {role: tuple(Artifact(a.url) for a in context.inputs[role]) for role in ("pairs", "raw")}
        folder = Path(context.scratch, "ranges")
        shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed
        job = Job(Index(context.input("index")), self.config, inputs, str(folder))
        tasks: Tasks = OnRay() if self.needs_ray(context.inputs) else InProcess()
        passes = Passes(job, tasks)
        decide(passes, Tombstones.load(context.tombstones))
        counts: Counter[str] = Counter()
        for number, part in enumerate(passes.read(_write_tables, str(folder))):
            counts.update(part)
            for name in _names(number):
                shutil.move(folder / name, context.out / name)
        shutil.copyfile(job.index.artifact.path(RANGES), context.out / RANGES)
        write(passes, figures(passes), context.out)
        shutil.rmtree(folder)
        context.counts.update({"pairs": 0, "kept": 0, "shown": 0})
        context.counts.update(counts)

    @classmethod
    def forget(cls, artifact: Artifact, inputs: ForgetInputs, forgotten: Forgotten, out: Path | None) -> Removal:
        """See `stages/select/forget.py`."""
        from stages.select.forget import forget

        return forget(artifact, inputs, forgotten, out)


def _names(range: int) -> tuple[str, str]:
    return verdict_file(range), f"contamination-{range:05d}.parquet"


def _write_tables(decision: Decision, folder: str) -> Counter[str]:
    """Write a range's tables where all workers can; returns the stage's counts."""
    import pyarrow.parquet as pq

    for name, table in zip(_names(decision.number), (decision.verdicts(), decision.contamination()), strict=True):
        # uids have nothing to gain from a dictionary.
        plain = [column for column in table.column_names if column not in ("uid", "image_uid")]
        part = Path(folder, f"{name}.{os.getpid()}.part")
        pq.write_table(table, part, use_dictionary=plain, **_SETTINGS)
        os.replace(part, Path(folder, name))
    reasons = decision.counts()
    kept = reasons.pop("", 0)
    dropped = {f"dropped.{reason}": pairs for reason, pairs in reasons.items()}
    return Counter({"pairs": len(decision.code), "kept": kept, "shown": int(decision.repeats.sum()), **dropped})
