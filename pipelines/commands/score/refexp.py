"""`score refexp`: boxes of referring expressions."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines.commands.score.base import ResultsScorer, add_report_options, described, identified
from pipelines.commands.score.report import score_file
from stages.evaluate.scorers.refexp import score_refexp
from stages.evaluate.scorers.scored import Scored
from stages.formats.problems import Id
from stages.formats.refexp import BoxResults, read_boxes, read_expressions

HELP = "boxes of referring expressions: accuracy at IoU 0.5"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `score refexp`."""
    parser.add_argument("--annotations", type=Path, required=True, metavar="A.json", help="boxes xywh in pixels")
    parser.add_argument("--results", type=Path, required=True, metavar="R.json", help="[{id, bbox: [x, y, w, h]}]")
    add_options(parser)
    add_report_options(parser)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options that `score compare` has as well."""
    parser.add_argument(
        "--coordinates",
        choices=("pixels", "normalized", "thousandths"),
        help="of the results (default: what the file declares, else pixels)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Score one results file."""
    return score_file(BoxResultsScorer(arguments), arguments.results, arguments)


class BoxResultsScorer(ResultsScorer[BoxResults]):
    """Scores boxes on the annotated ones."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._arguments = arguments
        self._expressions = read_expressions(arguments.annotations)
        self.problems = self._expressions.problems

    def read(self, file: Path) -> BoxResults:
        """Trial -> box."""
        return read_boxes(file, self._expressions, self._arguments.coordinates)

    def score(self, results: Sequence[BoxResults], ids: Sequence[Id]) -> list[Scored]:
        """Accuracy at IoU 0.5 in percent, and the mean IoU."""
        columns: dict[str, list[Any]] = {
            "id": list(ids),
            "image_id": [self._expressions.trials[i].image_id for i in ids],
        }
        return [
            identified(
                score_refexp(self._expressions, one, ids),
                columns,
                described(annotations=self._arguments.annotations, results=one.file),
            )
            for one in results
        ]
