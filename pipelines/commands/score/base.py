"""What the subcommands of `pairmill score` share: their common options, and one interface to every kind of results."""

from __future__ import annotations

import argparse
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from stages.base.artifact import file_sha256
from stages.evaluate.scorers.scored import Scored
from stages.formats.problems import Id, Problems


class Results(Protocol):
    """A results file, read."""

    @property
    def file(self) -> Path:
        """The file."""

    @property
    def ids(self) -> list[Id]:
        """The samples that have a result, sorted."""

    @property
    def problems(self) -> Problems:
        """What is wrong with its entries."""


R = TypeVar("R", bound=Results)


class ResultsScorer(ABC, Generic[R]):
    """References of one kind, read once, on which any number of results files can be scored."""

    problems: Problems
    """What is wrong with the references."""

    @abstractmethod
    def read(self, file: Path) -> R:
        """Read a results file. Raises UserError."""

    @abstractmethod
    def score(self, results: Sequence[R], ids: Sequence[Id]) -> list[Scored]:
        """Score the same samples of several results, one :class:`Scored` each. Raises UserError.

        Its `per_sample` begins with the samples' ids, and its `protocol` with the files.
        """

    def count(self, scored: Scored) -> Any:
        """The number of samples as it is reported: one number, or one by noun."""
        return len(scored.units)

    def report(self, scored: Scored) -> dict[str, Any]:
        """The JSON object's part with the scores."""
        return scored.figures()


def described(**files: Path | None) -> dict[str, Any]:
    """Name and sha256 of the files that a score was computed from; no hash of a pipe, which was read to its end."""
    return {
        role: {"file": file.name, **({"sha256": file_sha256(file)} if file.is_file() else {})}
        for role, file in files.items()
        if file is not None
    }


def identified(scored: Scored, columns: Mapping[str, Sequence[Any]], protocol: Mapping[str, Any]) -> Scored:
    """The scores with columns that identify the samples, and files in the protocol, put first."""
    per_sample = {name: list(values) for name, values in columns.items()} | scored.per_sample
    return replace(scored, per_sample=per_sample, protocol={**protocol, **scored.protocol})


def add_common_options(parser: argparse.ArgumentParser) -> None:
    """Options of every subcommand."""
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument(
        "--allow-missing", action="store_true", help="score what is there although entries are missing or broken"
    )
    parser.add_argument("--resamples", type=_positive, default=1000, help="of the bootstrap (default: 1000)")
    parser.add_argument("--seed", type=_not_negative, default=0, help="of the bootstrap (default: 0)")


def add_report_options(parser: argparse.ArgumentParser) -> None:
    """Options of every subcommand that scores one results file."""
    add_common_options(parser)
    parser.add_argument("--confidence", action="store_true", help="95%% bootstrap intervals of every score")
    parser.add_argument("--per-sample", type=Path, metavar="FILE", help="each sample's scores, as .jsonl or .parquet")


def add_workers_option(parser: argparse.ArgumentParser) -> None:
    """The number of processes."""
    parser.add_argument("--workers", type=_positive, default=1, help="processes for METEOR (default: 1)")


def _positive(text: str) -> int:
    return _at_least(1, text)


def _not_negative(text: str) -> int:
    return _at_least(0, text)


def _at_least(least: int, text: str) -> int:
    if not (text.isdecimal() and len(text) < 20 and int(text) >= least):
        raise argparse.ArgumentTypeError(f"{text} is not a whole number of at least {least}")
    return int(text)
