"""`score refexp`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.commands.score.task import Scored, Task, described
from stages.base.contract import UserError
from stages.evaluate.formats.problems import Id, Problems, shown
from stages.evaluate.formats.refexp import Answers, Box, read_boxes, read_expressions
from stages.evaluate.metrics.boxes import HIT, hits, iou, to_pixels

#: Boxes, and pixels, from which on it is no accident that no coordinate is above 1.
_ENOUGH = 10


class ReferringExpressions(Task):
    """Boxes that sentences mean."""

    def __init__(self, arguments: argparse.Namespace, problems: Problems) -> None:
        super().__init__(arguments, problems)
        self.expressions = read_expressions(arguments.annotations, problems)
        self._spaces: dict[Path, Answers] = {}

    def read(self, file: Path) -> dict[Id, Any]:
        """Trial -> box in the file's space, or None."""
        found = read_boxes(file, self.expressions, self.arguments.coordinates, self.problems)
        self._spaces[file] = found
        return dict(found.boxes)

    def score(self, results: Sequence[tuple[Path, dict[Id, Any]]]) -> list[Scored]:
        """Accuracy at IoU 0.5 in percent, and the mean IoU."""
        return [self._scored(file, answers) for file, answers in results]

    def _scored(self, file: Path, answers: dict[Id, Box | None]) -> Scored:
        ids = list(answers)
        trials = [self.expressions.trials[i] for i in ids]
        parsed = np.array([answers[i] is not None for i in ids])
        boxes = np.array([answers[i] or (0.0, 0.0, 0.0, 0.0) for i in ids])
        truth = np.array([trial.box for trial in trials])
        pixels = self._in_pixels(file, ids, boxes, truth)
        overlap = iou(pixels, truth)
        score = hits(overlap, parsed)
        failures = int(np.count_nonzero(~parsed))
        samples: dict[str, list[Any]] = {
            "id": list(ids),
            "image_id": [trial.image_id for trial in trials],
            "bbox": [box.tolist() if read else None for box, read in zip(pixels, parsed, strict=True)],
            "parsed": parsed.tolist(),
            "iou": score.per_sample[:, 1].tolist(),
            "hit": (score.per_sample[:, 0] > 0).tolist(),
        }
        units = [
            trial.image_id if trial.image_id is not None else f"t{i}" for i, trial in zip(ids, trials, strict=True)
        ]
        return Scored(
            scores=[score],
            units=units,
            unit="images",
            n=len(ids),
            samples=samples,
            protocol={
                **described(annotations=self.arguments.annotations, results=file),
                "metric": f"accuracy in percent: one trial per sentence, a hit at IoU >= {HIT}; boxes xywh",
                "coordinates": self._spaces[file].space,
                "parse_failures": failures,
            },
        )

    def _in_pixels(self, file: Path, ids: list[Id], boxes: np.ndarray, truth: np.ndarray) -> np.ndarray:
        answers = self._spaces[file]
        written = np.array([i not in answers.in_pixels for i in ids])
        given = boxes[written]
        if answers.space == "pixels":
            if len(given) >= _ENOUGH and 0 < given.max() <= 1 and truth[written].max() > _ENOUGH:
                raise UserError(
                    f"{file}: no coordinate is above 1, so they look like fractions of the image; say so with "
                    "--coordinates normalized"
                )
            return boxes
        sizes = np.ones((len(ids), 2))
        for row in np.flatnonzero(written).tolist():
            size = self.expressions.trials[ids[row]].size
            if size is None:
                raise UserError(
                    f"{self.expressions.file}: annotation {shown(ids[row])} has no image width and height, which "
                    f"{answers.space} coordinates need; add them to its `images`"
                )
            sizes[row] = size
        pixels = boxes.copy()
        pixels[written] = to_pixels(given, sizes[written], answers.space)
        return pixels

    def report(self, scored: Scored) -> dict[str, Any]:
        """`accuracy`, `mean_iou`, `hits`, `parse_failures`."""
        failures = scored.protocol["parse_failures"]
        return {**scored.total(), "hits": int(sum(scored.samples["hit"])), "parse_failures": failures}
