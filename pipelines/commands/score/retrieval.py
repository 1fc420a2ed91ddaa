"""`score retrieval`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.commands.score.task import Scored, Task, described
from stages.base.contract import UserError
from stages.evaluate.formats.problems import Id, Problems
from stages.evaluate.formats.retrieval import read_scores, read_text_to_image
from stages.evaluate.metrics.additive import Additive
from stages.evaluate.metrics.retrieval import ranks, recalls

_TIES = "of equal scores the one with the lower index comes first"


class Retrieval(Task):
    """A matrix of scores, images by texts."""

    def __init__(self, arguments: argparse.Namespace, problems: Problems) -> None:
        super().__init__(arguments, problems)
        self._shape: tuple[int, ...] = ()
        self._map = np.zeros(0, dtype=np.int64)

    def read(self, file: Path) -> dict[Id, Any]:
        """One entry, the matrix: all results must be of the same shape."""
        matrix = read_scores(file)
        if self._shape and matrix.shape != self._shape:
            raise UserError(f"{file}: scores of shape {matrix.shape}, not {self._shape} as the others")
        if not self._shape:
            self._shape = matrix.shape
            self._map = read_text_to_image(
                self.arguments.text_to_image, matrix.shape[0], matrix.shape[1], self.problems
            )
        return {"scores": matrix}

    def score(self, results: Sequence[tuple[Path, dict[Id, Any]]]) -> list[Scored]:
        """Recalls in percent; texts without an image are left out."""
        return [self._scored(file, found["scores"]) for file, found in results]

    def _scored(self, file: Path, matrix: np.ndarray) -> Scored:
        kept = np.flatnonzero(self._map >= 0)
        given = getattr(self.arguments, "text_scores", None)
        other = read_scores(given) if given else None
        if other is not None and other.shape != matrix.shape[::-1]:
            raise UserError(f"{given}: scores of shape {other.shape}, not {matrix.shape[::-1]}, [texts, images]")
        if len(kept) < len(self._map):
            matrix, other = matrix[:, kept], None if other is None else other[kept]
        owners = self._map[kept]
        try:
            found = ranks(matrix, owners, other)
        except ValueError as error:
            raise UserError(f"{file}: {error}; write the scores again") from None
        everything = recalls(found, owners)
        images = np.flatnonzero(found.of_texts >= 0)
        score = Additive(everything.names, everything.per_sample[images], everything.sums[images], everything.of_sums)
        samples: dict[str, list[Any]] = {
            "query": ["image"] * len(images) + ["text"] * len(kept),
            "index": [*images.tolist(), *kept.tolist()],
            "rank": [*found.of_texts[images].tolist(), *found.of_images.tolist()],
        }
        return Scored(
            scores=[score],
            units=list(images.tolist()),
            unit="images",
            n={"images": len(images), "texts": len(kept)},
            samples=samples,
            protocol={
                **described(scores=file, text_scores=given, text_to_image=self.arguments.text_to_image),
                "metric": "recall at k in percent: txt_r finds an image's texts, img_r a text's image",
                "ties": _TIES,
            },
        )
