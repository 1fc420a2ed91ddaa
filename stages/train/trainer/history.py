"""The run's history on disk: one line per logged step, written by rank 0, each step once whatever was killed."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path

from stages.base.contract import StageContext


class History:
    """The metrics file of a stage's scratch folder, in the format of :meth:`stages.base.contract.StageContext.log`."""

    def __init__(self, scratch: str) -> None:
        self._task = StageContext(inputs={}, out=Path(scratch), intermediate=Path(scratch), scratch=scratch)
        self.path = self._task.metrics_file

    def log(self, step: int, metrics: Mapping[str, float], total: int | None = None) -> None:
        """Append one step's metrics; `total` steps there will be."""
        self._task.log(step, metrics, time.time(), total)

    def truncate(self, step: int) -> None:
        """Drop lines after `step`, and a last line that a kill cut short: those steps will be taken again."""
        if not self.path.exists():
            return
        kept = [line for line in self.path.read_bytes().splitlines(keepends=True) if _step(line) <= step]
        partial = self.path.with_name(self.path.name + ".part")
        partial.write_bytes(b"".join(kept))
        os.replace(partial, self.path)


def read_history(path: Path) -> list[dict[str, object]]:
    """All lines of a history; empty when there is none."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _step(line: bytes) -> float:
    return int(json.loads(line)["step"]) if line.endswith(b"\n") else float("inf")
