"""What the evaluate stage needs of a benchmark of any kind: its examples, and the scores of the texts for them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.evaluate.config import EvaluateConfig
from stages.formats.problems import Id


@dataclass(frozen=True)
class Example:
    """One text that the model generates about one image."""

    id: Id
    """The question's id, or the image's where there is no question."""
    image_id: Id
    file_name: str
    """The image's file name as the benchmark lists it; empty where it does not."""
    question: str
    """Empty for captions."""


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
    """Reads one benchmark's files and scores the texts generated for its examples."""

    def __init__(self, config: EvaluateConfig, locate: Callable[[str], Path]) -> None:
        """`locate` turns a configured path into a local one."""
        self.config = config
        self.locate = locate

    @abstractmethod
    def examples(self) -> list[Example]:
        """All examples, in file order. Raises UserError for a missing or malformed file."""

    @abstractmethod
    def check(self) -> None:
        """Raise UserError for a missing or malformed file that only scoring reads, before any text is generated."""

    @abstractmethod
    def score(self, examples: Sequence[Example], generated: Mapping[Id, str]) -> Result:
        """Scores of the generated texts, which are by example id."""
