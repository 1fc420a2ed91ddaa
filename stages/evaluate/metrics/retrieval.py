"""Image-text retrieval: recall at 1, 5 and 10 in both directions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stages.evaluate.metrics.additive import Additive

KS = (1, 5, 10)
_CELLS_AT_ONCE = 4_000_000


@dataclass(frozen=True)
class RetrievalRanks:
    """Ranks, from 0, of the right answer to each query; -1 where there is none (an image without texts)."""

    of_texts: np.ndarray
    """int64 [images]: of the first of its texts, among all texts. The direction `txt_r`."""
    of_images: np.ndarray
    """int64 [texts]: of its image, among all images. The direction `img_r`."""


def ranks(scores: np.ndarray, text_to_image: np.ndarray, text_scores: np.ndarray | None = None) -> RetrievalRanks:
    """Ranks by descending score; of equal scores the one with the lower index comes first.

    `scores` is [images, texts] (any real dtype, may be memory-mapped), higher is closer; `text_to_image` int64
    [texts] is each text's row. `text_scores` [texts, images] serve the direction from text to image where the two
    directions were scored apart (re-ranking by ITM scores other candidates in each). Raises ValueError on a wrong shape
    and on NaN, which has no rank.
    """
    images, texts = scores.shape
    if text_to_image.shape != (texts,):
        raise ValueError(f"{texts} columns of scores for {len(text_to_image)} texts")
    if text_scores is not None and text_scores.shape != (texts, images):
        raise ValueError(f"scores from text to image have shape {text_scores.shape}, not {(texts, images)}")
    order = np.argsort(text_to_image, kind="stable")  # texts by image, and by index within one
    counts = np.bincount(text_to_image, minlength=images)
    first = np.cumsum(counts) - counts
    of_texts = np.full(images, -1, dtype=np.int64)
    of_images = np.zeros(texts, dtype=np.int64)
    own = scores[text_to_image, np.arange(texts)]
    step = max(1, _CELLS_AT_ONCE // max(1, texts))
    for begin in range(0, images, step):
        block = np.asarray(scores[begin : begin + step])
        _no_nan(block, begin)
        rows = np.arange(begin, begin + len(block))
        for row, line in zip(rows.tolist(), block, strict=True):
            if counts[row]:
                mine = order[first[row] : first[row] + counts[row]]
                best = line[mine].max()
                place = mine[np.argmax(line[mine] == best)]
                of_texts[row] = np.count_nonzero(line > best) + np.count_nonzero(line[:place] == best)
        if text_scores is None:
            of_images += np.count_nonzero(block > own, axis=0)
            of_images += np.count_nonzero((block == own) & (rows[:, None] < text_to_image), axis=0)
    if text_scores is not None:
        step = max(1, _CELLS_AT_ONCE // max(1, images))
        for begin in range(0, texts, step):
            block = np.asarray(text_scores[begin : begin + step])
            _no_nan(block, begin)
            target = text_to_image[begin : begin + step]
            own_score = block[np.arange(len(block)), target][:, None]
            before = np.arange(images) < target[:, None]
            of_images[begin : begin + step] = np.count_nonzero(
                (block > own_score) | (block == own_score) & before, axis=1
            )
    return RetrievalRanks(of_texts, of_images)


def _no_nan(block: np.ndarray, begin: int) -> None:
    bad = np.argwhere(np.isnan(block))
    if len(bad):
        row, column = bad[0]
        raise ValueError(f"row {begin + int(row)}, column {int(column)} is NaN, which has no rank")


def recalls(found: RetrievalRanks, text_to_image: np.ndarray) -> Additive:
    """`txt_r1` .. `txt_r10`, `img_r1` .. `img_r10` in percent, as sums over images with all their texts.

    The means `txt_r_mean`, `img_r_mean` and `r_mean` are LAVIS's.
    """
    images = len(found.of_texts)
    queries = (found.of_texts >= 0).astype(np.float64)
    forward = [(found.of_texts >= 0) & (found.of_texts < k) for k in KS]
    backward = [np.bincount(text_to_image, weights=found.of_images < k, minlength=images) for k in KS]
    texts = np.bincount(text_to_image, minlength=images)
    sums = np.stack([*forward, queries, *backward, texts], axis=1).astype(np.float64)
    names = tuple(f"{way}_r{k}" for way in ("txt", "img") for k in (*KS, "_mean"))
    with np.errstate(invalid="ignore"):
        per_image = _recalls(sums)
    return Additive((*names, "r_mean"), per_image, sums, _recalls)


def _recalls(sums: np.ndarray) -> np.ndarray:
    size = len(KS)
    with np.errstate(invalid="ignore"):
        forward = 100 * sums[..., :size] / sums[..., size : size + 1]
        backward = 100 * sums[..., size + 1 : -1] / sums[..., -1:]
    means = [part.mean(axis=-1, keepdims=True) for part in (forward, backward)]
    return np.concatenate([forward, means[0], backward, means[1], (means[0] + means[1]) / 2], axis=-1)
