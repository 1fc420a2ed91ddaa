"""Decides on an index in a test, and shows what came of it over all ranges."""

from __future__ import annotations

import uuid
from collections import Counter
from pathlib import Path

import pyarrow as pa

from stages.base.tasks import InProcess, Tasks
from stages.base.tombstones import Tombstones
from stages.index.reader import Index
from stages.select.config import SelectConfig
from stages.select.decision import Decision
from stages.select.job import Job, Limits, Passes
from stages.select.report.figures import DataReport, figures
from stages.select.verdict import decide

#: Limits by which even a few rows are divided among buckets and components.
SMALL = Limits(rows=20, edges=8, candidates=2)


class Selected:
    """What a selection decided, in order of the uids."""

    def __init__(self, passes: Passes) -> None:
        self.passes = passes
        self.decisions = list(passes.read(_itself))

    def verdicts(self) -> pa.Table:
        """All verdicts."""
        return pa.concat_tables([decision.verdicts() for decision in self.decisions]).sort_by("uid")

    def contamination(self) -> pa.Table:
        """All pairs that a benchmark holds."""
        return pa.concat_tables([decision.contamination() for decision in self.decisions]).sort_by("uid")

    def reasons(self) -> list[str]:
        """The reason of every pair."""
        reasons: list[str] = self.verdicts()["reason"].to_pylist()
        return reasons

    def repeats(self) -> list[int]:
        """How often an epoch shows every pair."""
        repeats: list[int] = self.verdicts()["repeats"].to_pylist()
        return repeats

    def counts(self) -> Counter[str]:
        """Reason -> pairs."""
        return sum((decision.counts() for decision in self.decisions), Counter())

    def report(self) -> DataReport:
        """The report's figures."""
        return figures(self.passes)


def select(
    index: Index,
    config: SelectConfig,
    tombstones: Tombstones | None = None,
    limits: Limits | None = None,
    tasks: Tasks | None = None,
) -> Selected:
    """Apply a selection to an index; what passes hand over lies beside the index."""
    folder = Path(index.artifact.url, "scratch", uuid.uuid4().hex)
    passes = Passes(Job(index, config, {}, str(folder), limits or Limits()), tasks or InProcess())
    decide(passes, tombstones)
    return Selected(passes)


def whole(index: Index, table: str) -> pa.Table:
    """The `images` or `pairs` of all ranges, in their order."""
    return pa.concat_tables([getattr(index, table)(number) for number in range(len(index.ranges))])


def _itself(decision: Decision) -> Decision:
    return decision
