"""Boxes of referring expressions, scored by their overlap with the annotated box."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stages.base.contract import UserError
from stages.evaluate.metrics.boxes import HIT, hits, iou, to_pixels
from stages.evaluate.scorers.scored import Scored
from stages.formats.problems import Id, printable
from stages.formats.refexp import BoxResults, Expressions

#: From this many boxes, and pixels, on it is no accident that no coordinate is above 1.
_ENOUGH = 10


def score_refexp(expressions: Expressions, results: BoxResults, ids: Sequence[Id] | None = None) -> Scored:
    """`accuracy` at IoU 0.5 in percent and `mean_iou`, over all trials with an answer or those named.

    An answer without a box is a miss, counted in `parse_failures`. Raises UserError where coordinates cannot be what
    they are declared as, or need an image's size that the annotations lack.
    """
    ids = results.ids if ids is None else list(ids)
    trials = [expressions.trials[i] for i in ids]
    parsed = np.array([results.boxes[i] is not None for i in ids])
    boxes = np.array([results.boxes[i] or (0.0, 0.0, 0.0, 0.0) for i in ids])
    truth = np.array([trial.box for trial in trials])
    pixels = _in_pixels(expressions, results, ids, boxes, truth)
    score = hits(iou(pixels, truth), parsed)
    hit = score.per_sample[:, 0] > 0
    return Scored(
        metrics=[score],
        units=[f"t{i}" if trial.image_id is None else trial.image_id for i, trial in zip(ids, trials, strict=True)],
        per_sample={
            "bbox": [box.tolist() if read else None for box, read in zip(pixels, parsed, strict=True)],
            "parsed": parsed.tolist(),
            "iou": score.per_sample[:, 1].tolist(),
            "hit": hit.tolist(),
        },
        protocol={
            "metric": f"accuracy in percent: one trial per sentence, a hit at IoU >= {HIT}; boxes xywh",
            "coordinates": results.space,
        },
        counts={"hits": int(np.count_nonzero(hit)), "parse_failures": int(np.count_nonzero(~parsed))},
    )


def _in_pixels(
    expressions: Expressions, results: BoxResults, ids: Sequence[Id], boxes: np.ndarray, truth: np.ndarray
) -> np.ndarray:
    """The answered boxes xywh in pixels, float64 [trials, 4]; those from location tokens are in pixels already."""
    written = np.array([i not in results.in_pixels for i in ids])
    given = boxes[written]
    if results.space == "pixels":
        if len(given) >= _ENOUGH and 0 < given.max() <= 1 and truth[written].max() > _ENOUGH:
            raise UserError(
                f"{results.file}: no coordinate is above 1, so they look like fractions of the image; declare it with "
                "--coordinates normalized"
            )
        return boxes
    sizes = np.ones((len(ids), 2))
    for row in np.flatnonzero(written).tolist():
        size = expressions.trials[ids[row]].size
        if size is None:
            raise UserError(
                f"{expressions.file}: annotation {printable(ids[row])} has no image width and height, which "
                f"{results.space} coordinates need; add them to its `images`"
            )
        sizes[row] = size
    pixels = boxes.copy()
    pixels[written] = to_pixels(given, sizes[written], results.space)
    return pixels
