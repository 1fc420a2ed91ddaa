"""The record of damaged samples that training replaced: written and logged by uid, kept over restarts."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.train.trainer.hooks import Hook, StepResult

if TYPE_CHECKING:
    from stages.train.trainer.ranks import RankInfo
    from stages.train.trainer.trainer import Trainer

_LOG = logging.getLogger(__name__)
#: Samples a rank logs, and uids `train.json` lists, at most.
_LOGGED, _LISTED = 100, 1000


class ReplacedSamplesRecord(Hook):
    """Appends a JSON line per replaced sample to `replaced-<data rank>.jsonl` in the run's folder."""

    def __init__(self, folder: Path, ranks: RankInfo) -> None:
        self._path = folder / f"replaced-{ranks.data_rank}.jsonl"
        self._writes = ranks.is_first_of_data_rank
        self._logged = 0

    def on_step(self, trainer: Trainer, step: StepResult) -> None:
        """Write and log what this rank replaced."""
        if not self._writes or not step.replaced_here:
            return
        lines = [asdict(sample) for sample in step.replaced_here]
        with open(self._path, "a", encoding="utf-8") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)
        for line in lines[: max(0, _LOGGED - self._logged)]:
            _LOG.warning("%s: replaced by uid %s", line["reason"], line["by"])
        self._logged += len(lines)


def replaced_summary(folder: Path) -> dict[str, Any]:
    """For `train.json`: the number of replaced samples, each counted once per epoch, and uids of the first thousand."""
    replaced: set[tuple[int, str]] = set()
    for path in sorted(folder.glob("replaced-*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
            if line.endswith("\n"):  # a kill may have cut the last one short
                record = json.loads(line)
                replaced.add((record["epoch"], record["uid"]))
    return {"samples": len(replaced), "uids": sorted({uid for _, uid in replaced})[:_LISTED]}
