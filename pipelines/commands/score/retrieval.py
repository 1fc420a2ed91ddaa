"""`score retrieval`: a matrix of image-text scores."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.commands.score.base import ResultsScorer, add_report_options, described, identified
from pipelines.commands.score.report import score_file
from stages.base.contract import UserError
from stages.evaluate.scorers.retrieval import score_retrieval
from stages.evaluate.scorers.scored import Scored
from stages.formats.problems import Id, Problems
from stages.formats.retrieval import TextToImage, read_scores, read_text_to_image

HELP = "a matrix of image-text scores: recall at 1, 5 and 10 both ways"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `score retrieval`."""
    parser.add_argument("--scores", type=Path, required=True, metavar="S.npy", help="[images, texts]")
    parser.add_argument(
        "--text-scores", type=Path, metavar="T.npy", help="[texts, images], where that direction was scored apart"
    )
    parser.add_argument(
        "--text-to-image", type=Path, required=True, metavar="MAP.json", help="each text's row: a list or an object"
    )
    add_report_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Score one matrix."""
    return score_file(RetrievalResultsScorer(arguments), arguments.scores, arguments)


@dataclass(frozen=True)
class _Matrix:
    """A score matrix, which is scored as a whole."""

    file: Path
    scores: np.ndarray
    """[images, texts]."""
    text_to_image: TextToImage

    @property
    def ids(self) -> list[Id]:
        """The rows."""
        return list(range(len(self.scores)))

    @property
    def problems(self) -> Problems:
        """Those of the map, which can be read only once the matrix's shape is known."""
        return self.text_to_image.problems


class RetrievalResultsScorer(ResultsScorer[_Matrix]):
    """Scores matrices of one shape on one map from texts to images."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._arguments = arguments
        self._first: _Matrix | None = None
        self.problems = Problems()

    def read(self, file: Path) -> _Matrix:
        """The matrix, memory-mapped; all must be of the same shape."""
        scores = read_scores(file)
        if self._first is None:
            images, texts = scores.shape
            self._first = _Matrix(file, scores, read_text_to_image(self._arguments.text_to_image, images, texts))
        elif scores.shape != self._first.scores.shape:
            raise UserError(f"{file}: scores of shape {scores.shape}, not {self._first.scores.shape} as the others")
        return _Matrix(file, scores, self._first.text_to_image)

    def score(self, results: Sequence[_Matrix], ids: Sequence[Id]) -> list[Scored]:
        """Recalls in percent; texts without an image are left out."""
        return [self._score(one) for one in results]

    def _score(self, matrix: _Matrix) -> Scored:
        file = getattr(self._arguments, "text_scores", None)  # `compare` has no such option
        text_scores = read_scores(file) if file else None
        shape = matrix.scores.shape[::-1]
        if text_scores is not None and text_scores.shape != shape:
            raise UserError(f"{file}: scores of shape {text_scores.shape}, not {shape}, [texts, images]")
        try:
            scored = score_retrieval(matrix.scores, matrix.text_to_image.image, text_scores)
        except ValueError as error:
            raise UserError(f"{matrix.file}: {error}; write the scores again") from None
        files = described(scores=matrix.file, text_scores=file, text_to_image=self._arguments.text_to_image)
        return identified(scored, {}, files)

    def count(self, scored: Scored) -> dict[str, Any]:
        """Images and texts that are queries."""
        queries = Counter(scored.per_sample["query"])
        return {"images": queries["image"], "texts": queries["text"]}
