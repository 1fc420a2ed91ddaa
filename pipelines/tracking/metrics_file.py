"""Reads a stage's `metrics.jsonl` while it grows, and drops the steps that a resumed stage repeats."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from pipelines.tracking.params import entity_key

log = logging.getLogger(__name__)

#: Bytes before the read position that are compared to detect a file that was truncated and written again.
_OVERLAP = 512


class Point(NamedTuple):
    """One value of one metric; the fields are the arguments of `mlflow.entities.Metric`."""

    key: str
    value: float
    timestamp: int
    """ms since the epoch."""
    step: int


class LoggedSteps:
    """The highest step logged of each metric: points up to it are what a resumed stage or a replay repeats."""

    def __init__(self, logged: Mapping[str, int] | None = None) -> None:
        self._highest = dict(logged or {})

    def advance(self, points: Iterable[Point]) -> list[Point]:
        """The points that are not logged yet, each step of each metric once; counts them as logged from now on."""
        new = []
        for point in points:
            if point.step > self._highest.get(point.key, -1):
                self._highest[point.key] = point.step
                new.append(point)
        return new


class MetricsTail:
    """Reads a metrics file on from where it stopped, or from its start if the file was truncated or replaced.

    The file is kept open, so that its last lines can be read after a finished stage's scratch folder is removed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: BinaryIO | None = None
        self._overlap = b""

    def new_points(self) -> list[Point]:
        """The points of all lines completed since the last call (again from the first line after a truncation)."""
        points = self._read()
        with contextlib.suppress(FileNotFoundError):
            if self._file is None or not os.path.samestat(os.fstat(self._file.fileno()), self.path.stat()):
                file = open(self.path, "rb")  # noqa: SIM115 (kept open, see above)
                self.close()
                self._file = file
                points += self._read()
        return points

    def close(self) -> None:
        """Close the file and start at its beginning the next time."""
        if self._file is not None:
            self._file.close()
        self._file, self._overlap = None, b""

    def _read(self) -> list[Point]:
        if self._file is None:
            return []
        position = self._file.tell()
        self._file.seek(position - len(self._overlap))
        if self._file.read(len(self._overlap)) != self._overlap:
            position, self._overlap = 0, b""
            self._file.seek(0)
        data = self._file.read()
        lines = data[: data.rfind(b"\n") + 1]
        self._file.seek(position + len(lines))
        self._overlap = (self._overlap + lines)[-_OVERLAP:]
        return list(parse(lines))


def parse(lines: bytes) -> Iterator[Point]:
    """The points of whole lines, in order; a line that a kill cut short is left out, with a warning."""
    for line in lines.split(b"\n"):
        # After a kill in mid-line, the first line of the resumed stage is appended to the incomplete one.
        record = _record(line) or _record(line[max(line.rfind(b'{"step"'), 0) :])
        if record is not None:
            for key, value in record["metrics"].items():
                yield Point(entity_key(key), float(value), int(record["time"] * 1000), int(record["step"]))
        elif line.strip():
            log.warning("a line of a metrics file was cut short and is left out")


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and {"step", "time", "metrics"} <= record.keys() else None
