"""Boxes of referring expressions: intersection over union, and the spaces that coordinates are written in."""

from __future__ import annotations

import numpy as np

from models.common.location_tokens import BINS
from stages.evaluate.metrics.additive import Additive
from stages.formats.refexp import Space

#: A hit, as RefCOCO's evaluation counts it: IoU of at least this.
HIT = 0.5


def to_pixels(boxes: np.ndarray, sizes: np.ndarray, space: Space) -> np.ndarray:
    """Boxes xywh float64 [n, 4] from a space into pixels; `sizes` float64 [n, 2] are the images' width and height.

    `normalized` coordinates are fractions of width and height, `thousandths` a thousand times that.
    """
    if space == "pixels":
        return boxes
    scale = np.concatenate([sizes, sizes], axis=1)
    scaled: np.ndarray = boxes * (scale if space == "normalized" else scale / BINS)
    return scaled


def iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over union of pairs of boxes xywh, float64 [n, 4] each -> float64 [n] in [0, 1].

    As pycocotools computes it for boxes: continuous coordinates, no added pixel. Of two boxes without area it is 0.
    """
    corners = np.minimum(first[:, :2] + first[:, 2:], second[:, :2] + second[:, 2:])
    sides = np.maximum(0, corners - np.maximum(first[:, :2], second[:, :2]))
    common = sides[:, 0] * sides[:, 1]
    union = first[:, 2] * first[:, 3] + second[:, 2] * second[:, 3] - common
    found = np.divide(common, union, out=np.zeros_like(union), where=union > 0)
    return np.minimum(found, 1.0)  # boxes thinner than the rounding of their corners


def hits(found: np.ndarray, parsed: np.ndarray) -> Additive:
    """`accuracy` in percent (IoU of at least 0.5) and `mean_iou` over all trials; `found` IoU, `parsed` bool, both [n].

    A trial whose box could not be read is a miss with an IoU of 0.
    """
    overlap = np.where(parsed, found, 0.0)
    sums = np.stack([overlap >= HIT, overlap, np.ones_like(overlap)], axis=1).astype(np.float64)
    return Additive(("accuracy", "mean_iou"), _scores(sums), sums, _scores)


def _scores(sums: np.ndarray) -> np.ndarray:
    return sums[..., :2] * np.array([100.0, 1.0]) / sums[..., 2:]
