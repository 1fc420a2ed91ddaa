"""BLEU-1..4 (Papineni et al. 2002), corpus and per image, with the smoothing of coco-caption."""

from __future__ import annotations

import numpy as np

from stages.evaluate.metrics.additive import Additive
from stages.evaluate.metrics.captions.ngrams import LONGEST, Counted

NAMES = tuple(f"Bleu_{n}" for n in range(1, LONGEST + 1))
# coco-caption's constants: an n-gram order without candidates divides by SMALL, one without matches counts TINY.
_SMALL = 1e-9
_TINY = 1e-15


def bleu(counted: Counted) -> Additive:
    """BLEU-1..4 in [0, 1]; the corpus scores come from counts summed over the images.

    The reference length is the one closest to the candidate's, the shorter of two equally close.
    """
    possible = [np.maximum(0, counted.candidate_lengths - n) for n in range(LONGEST)]
    columns = [counted.candidate_lengths, _closest_lengths(counted), *possible, *_matches(counted)]
    sums = np.stack(columns, axis=1).astype(np.float64)
    return Additive(NAMES, _scores(sums), sums, _scores)


def _closest_lengths(counted: Counted) -> np.ndarray:
    own = counted.candidate_lengths[counted.image_of]
    longest = int(counted.reference_lengths.max(initial=0)) + 1
    # One number that orders by distance first and by length second.
    ranked = np.abs(counted.reference_lengths - own) * longest + counted.reference_lengths
    best = np.full(counted.images, np.iinfo(np.int64).max)
    np.minimum.at(best, counted.image_of, ranked)
    return best % longest


def _matches(counted: Counted) -> list[np.ndarray]:
    """Clipped matches of each n, int64 [images]."""
    matches = []
    for order in counted.orders:
        most = np.zeros(len(order.candidates.count), dtype=np.int64)
        shared = order.place >= 0
        np.maximum.at(most, order.place[shared], order.references.count[shared])
        clipped = np.minimum(order.candidates.count, most)
        matches.append(np.bincount(order.candidates.caption, weights=clipped, minlength=counted.images))
    return matches


def _scores(sums: np.ndarray) -> np.ndarray:
    """[..., 2 + 2 * LONGEST] counts -> [..., LONGEST] scores."""
    length, closest = sums[..., 0], sums[..., 1]
    possible, matched = sums[..., 2 : 2 + LONGEST], sums[..., 2 + LONGEST :]
    precision = np.cumprod((matched + _TINY) / (possible + _SMALL), axis=-1)
    ratio = (length + _TINY) / (closest + _SMALL)
    penalty = np.where(ratio < 1, np.exp(1 - 1 / np.minimum(ratio, 1)), 1.0)
    scores: np.ndarray = precision ** (1 / np.arange(1, LONGEST + 1)) * penalty[..., None]
    return scores
