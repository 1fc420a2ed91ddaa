"""What scoring needs of a task, whatever is scored: reading references and results, and scoring results on them."""

from __future__ import annotations

import argparse
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from stages.base.artifact import file_sha256
from stages.evaluate.formats.problems import Id, Problems
from stages.evaluate.metrics.additive import Additive


@dataclass
class Scored:
    """A results file, scored."""

    scores: list[Additive]
    """All over the same samples."""
    units: list[Id]
    """What the bootstrap draws: each sample's unit."""
    unit: str
    """The name of a unit in the plural, e.g. "images"."""
    n: Any
    """How many samples, as it is reported."""
    samples: dict[str, list[Any]]
    """Columns of the file of per-sample scores."""
    protocol: dict[str, Any]
    """How the scores came about."""
    unavailable: dict[str, str] = field(default_factory=dict)
    """Score's name -> why it is not there."""
    domains: dict[str, np.ndarray] = field(default_factory=dict)
    """Domain -> indices of its samples, for benchmarks that report by domain."""

    def total(self) -> dict[str, float]:
        """Name -> score."""
        return {name: value for score in self.scores for name, value in score.total().items()}


class Task(ABC):
    """References of one kind, read once, on which any number of results are scored."""

    def __init__(self, arguments: argparse.Namespace, problems: Problems) -> None:
        self.arguments = arguments
        self.problems = problems

    @abstractmethod
    def read(self, file: Path) -> dict[Id, Any]:
        """A results file by sample id, in an order of their own. Raises UserError."""

    @abstractmethod
    def score(self, results: Sequence[tuple[Path, dict[Id, Any]]]) -> list[Scored]:
        """Several results of the same ids, in the same order. Raises UserError."""

    def report(self, scored: Scored) -> dict[str, Any]:
        """What the JSON object says of the scores, beside `n` and `protocol`."""
        return scored.total()


def described(**files: Path | None) -> dict[str, Any]:
    """Name and hash of the files that a score was made from; no hash of a pipe, which was read to its end."""
    return {
        role: {"file": file.name, **({"sha256": file_sha256(file)} if file.is_file() else {})}
        for role, file in files.items()
        if file is not None
    }
