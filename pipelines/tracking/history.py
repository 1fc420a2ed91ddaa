"""Follows a stage's metrics file while it grows, and through what a kill and a resume do to it."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from pipelines.tracking.params import entity_key

log = logging.getLogger(__name__)

#: Bytes before the reading position that are compared to notice a file that was cut back and written again.
_TAIL = 512


@dataclass(frozen=True)
class Point:
    """One value of one metric."""

    key: str
    value: float
    time: int
    """ms since the epoch."""
    step: int


class Watermarks:
    """The last step delivered of each metric: a resumed run repeats steps, a chart must not."""

    def __init__(self, delivered: dict[str, int] | None = None) -> None:
        self._last = dict(delivered or {})

    def fresh(self, points: list[Point]) -> list[Point]:
        """The points beyond what was delivered, each step of each metric once; does not move the marks."""
        seen = dict(self._last)
        kept = []
        for point in points:
            if point.step > seen.get(point.key, -1):
                seen[point.key] = point.step
                kept.append(point)
        return kept

    def delivered(self, points: list[Point]) -> None:
        """Move the marks past points that have arrived."""
        for point in points:
            self._last[point.key] = max(point.step, self._last.get(point.key, -1))


class HistoryTail:
    """Reads `metrics.jsonl` (see `StageContext.log`) from where it stopped; from the start if the file was cut or
    replaced.

    The open file is kept, so the last lines can still be read after a finished stage's scratch folder is removed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: BinaryIO | None = None
        self._tail = b""

    def new_points(self) -> list[Point]:
        """All points of the lines completed since the last call (again from the first line after a cut)."""
        points: list[Point] = []
        if self._replaced():
            points += self._read()
            self.close()
        if self._file is None:
            try:
                self._file = open(self.path, "rb")  # noqa: SIM115 (kept open, see above)
            except FileNotFoundError:
                return points
        return points + self._read()

    def close(self) -> None:
        """Forget the file and the position in it."""
        if self._file is not None:
            self._file.close()
        self._file, self._tail = None, b""

    def _replaced(self) -> bool:
        if self._file is None:
            return False
        try:
            return not os.path.samestat(os.fstat(self._file.fileno()), self.path.stat())
        except FileNotFoundError:
            return False

    def _read(self) -> list[Point]:
        assert self._file is not None
        position = self._file.tell()
        self._file.seek(position - len(self._tail))
        if self._file.read(len(self._tail)) != self._tail:
            self._file.seek(0)
            self._tail = b""
            position = 0
        data = self._file.read()
        complete = data[: data.rfind(b"\n") + 1]
        self._file.seek(position + len(complete))
        self._tail = (self._tail + complete)[-_TAIL:]
        return read_points(complete)


def read_points(lines: bytes) -> list[Point]:
    """The points of whole lines, in order; a line cut short by a kill is left out."""
    return list(_points(lines))


def _points(lines: bytes) -> Iterator[Point]:
    for line in lines.split(b"\n"):
        # A kill in mid-line leaves a stump that the resumed run's first line is appended to.
        record = _record(line) or _record(line[max(line.rfind(b'{"step"'), 0) :])
        if record is None:
            if line.strip():
                log.warning("a line of a metrics file was cut short and is left out")
            continue
        for key, value in record["metrics"].items():
            yield Point(entity_key(key), float(value), int(record["time"] * 1000), int(record["step"]))


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and {"step", "time", "metrics"} <= record.keys() else None
