"""The record of samples that training could not use: counted, logged by uid, kept over restarts."""

from __future__ import annotations

import json
import logging
from collections import deque
from dataclasses import asdict
from pathlib import Path
from typing import Any

from stages.train.data.transform import Replaced

_LOG = logging.getLogger(__name__)
_LOGGED = 100
_LISTED = 1000


class Replacements:
    """One rank's replaced samples, a JSON line each in `replaced-<rank>.jsonl`."""

    def __init__(self, folder: Path, rank: int, report: bool = True) -> None:
        """`report`: false for a rank that sees the same samples as another, which reports them."""
        self._path = folder / f"replaced-{rank}.jsonl"
        self._report = report
        self._logged = 0

    def note(self, found: deque[Replaced]) -> int:
        """Write down and log what was replaced since the last call, emptying `found`; returns how many to count."""
        if not found:
            return 0
        lines = [asdict(found.popleft()) for _ in range(len(found))]
        if not self._report:
            return 0
        with open(self._path, "a", encoding="utf-8") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)
        for line in lines[: max(0, _LOGGED - self._logged)]:
            _LOG.warning("%s: replaced by uid %s", line["reason"], line["by"])
        self._logged += len(lines)
        return len(lines)


def summary(folder: Path) -> dict[str, Any]:
    """For `train.json`: how many samples were replaced, each counted once per epoch, and uids of the first thousand."""
    found: set[tuple[int, str]] = set()
    for path in sorted(folder.glob("replaced-*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
            if line.endswith("\n"):  # a kill may have cut the last one short
                record = json.loads(line)
                found.add((record["epoch"], record["uid"]))
    return {"samples": len(found), "uids": sorted({uid for _, uid in found})[:_LISTED]}
