"""What the evaluate stage needs of a benchmark, whatever it asks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.evaluate.benchmarks.example import Example
from stages.evaluate.config import EvaluateConfig
from stages.evaluate.formats.problems import Id


@dataclass(frozen=True)
class Result:
    """A scored benchmark."""

    predictions: list[dict[str, Any]]
    """In the benchmark's public results format."""
    scores: dict[str, Any]
    """The figures, without the protocol."""
    protocol: dict[str, Any]
    """What the benchmark adds to the protocol, beyond prompt and search."""
    per_sample: dict[str, list[Any]]
    """Columns of `samples.parquet`, one row per example."""


class Benchmark(ABC):
    """Reads one benchmark's files and scores the texts written for its examples."""

    def __init__(self, config: EvaluateConfig, locate: Callable[[str], Path]) -> None:
        """`locate` turns a configured path into a local one."""
        self.config = config
        self.locate = locate

    @abstractmethod
    def examples(self) -> list[Example]:
        """All examples, in file order. Raises UserError for a missing or malformed file."""

    @abstractmethod
    def check(self) -> None:
        """Raises UserError where a file that only scoring reads is missing or malformed: before anything is written."""

    @abstractmethod
    def score(self, examples: Sequence[Example], written: Mapping[Id, str]) -> Result:
        """Scores of the texts by example id."""
