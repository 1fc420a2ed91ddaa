"""CIDEr-D (Vedantam et al. 2015): tf-idf weighted n-gram agreement, clipped, with a penalty on length."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stages.evaluate.metrics.additive import Additive, mean
from stages.evaluate.metrics.captions.ngrams import LONGEST, Counted, Occurrences, Order, first_of_equals

_SIGMA = 6.0


def cider_d(counted: Counted, frequencies: Sequence[np.ndarray] | None = None, images: int | None = None) -> Additive:
    """CIDEr-D in [0, 10]; the corpus score is the mean over images.

    `frequencies` are, for each n, the numbers of images whose references hold each n-gram (float64 [n-grams], as
    :func:`document_frequencies` gives them) in a collection of `images`; None takes those of the references counted. To
    score a part of a benchmark as the whole is scored (NoCaps' domains), count the whole and average the part.
    """
    frequencies = document_frequencies(counted) if frequencies is None else frequencies
    log_images = np.log(float(counted.images if images is None else images)) if counted.images else 0.0
    of_image = counted.image_of
    # The reference implementation measures length in bigrams.
    bigrams = np.maximum(0, counted.candidate_lengths - 1)
    gap = bigrams[of_image] - np.maximum(0, counted.reference_lengths - 1)
    penalty = np.e ** (-(gap.astype(np.float64) ** 2) / (2 * _SIGMA**2))
    total = np.zeros((counted.images, LONGEST))
    for n, (order, frequency) in enumerate(zip(counted.orders, frequencies, strict=True)):
        rarity = log_images - np.log(np.maximum(1.0, frequency))
        similarity = _similarity(order, rarity, counted.images, of_image) * penalty
        total[:, n] = np.bincount(of_image, weights=similarity, minlength=counted.images)
    references = np.bincount(of_image, minlength=counted.images)
    return mean("CIDEr", total.mean(axis=1) / np.maximum(references, 1) * 10.0)


def document_frequencies(counted: Counted) -> list[np.ndarray]:
    """For each n, in how many images' references each n-gram stands, float64 [n-grams]."""
    frequencies = []
    for order in counted.orders:
        kinds = max(1, len(order.position))
        # References of one image are neighbours, and an image counts once.
        in_image = np.sort(order.image * kinds + order.references.ngram)
        once = in_image[first_of_equals(in_image)] % kinds
        frequencies.append(np.bincount(once, minlength=kinds).astype(np.float64))
    return frequencies


def _similarity(order: Order, rarity: np.ndarray, images: int, of_image: np.ndarray) -> np.ndarray:
    """Clipped cosine of each reference with its image's candidate, float64 [references]."""
    own, own_norms = _weights(order.candidates, rarity, images)
    others, norms = _weights(order.references, rarity, len(of_image))
    shared = np.flatnonzero(order.place >= 0)
    weight = others[shared]
    product = np.minimum(own[order.place[shared]], weight) * weight
    value = np.bincount(order.references.caption[shared], weights=product, minlength=len(of_image))
    norm = own_norms[of_image] * norms
    similarity: np.ndarray = value / np.where(norm != 0, norm, 1.0)
    return similarity


def _weights(occurrences: Occurrences, rarity: np.ndarray, captions: int) -> tuple[np.ndarray, np.ndarray]:
    """tf-idf of each pair, and the norm of each caption."""
    weights = occurrences.count * rarity[occurrences.ngram]
    return weights, np.sqrt(np.bincount(occurrences.caption, weights=weights**2, minlength=captions))
