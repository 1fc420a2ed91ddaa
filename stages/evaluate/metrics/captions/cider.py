"""CIDEr-D (Vedantam et al. 2015): tf-idf weighted n-gram agreement, clipped, with a penalty on length."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from stages.evaluate.metrics.captions.ngrams import Ngram, ngrams

_N = 4
_SIGMA = 6.0


@dataclass(frozen=True)
class _Vector:
    weights: list[dict[Ngram, float]]
    norms: list[float]
    bigrams: int


def cider_d(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """Score (times 10, so 0..10) of each image, over tokenised captions; the corpus score is the mean.

    Document frequencies are those of the references given. To score a part of a benchmark as the whole is scored
    (NoCaps' domains), pass the whole and average the part.
    """
    counted = [[ngrams(reference.split()) for reference in refs] for refs in references]
    frequency: Counter[Ngram] = Counter()
    for refs in counted:
        frequency.update({ngram for reference in refs for found in reference for ngram in found})
    log_images = math.log(len(counted)) if counted else 0.0
    scores = []
    for candidate, refs in zip(candidates, counted, strict=True):
        vector = _vector(ngrams(candidate.split()), frequency, log_images)
        total = [0.0] * _N
        for reference in refs:
            for n, value in enumerate(_similarity(vector, _vector(reference, frequency, log_images))):
                total[n] += value
        scores.append(sum(total) / _N / len(refs) * 10)
    return scores


def _vector(found: list[Counter[Ngram]], frequency: Counter[Ngram], log_images: float) -> _Vector:
    weights = [
        {ngram: count * (log_images - math.log(max(1, frequency[ngram]))) for ngram, count in counts.items()}
        for counts in found
    ]
    norms = [math.sqrt(sum(weight**2 for weight in of_n.values())) for of_n in weights]
    return _Vector(weights, norms, found[1].total())


def _similarity(candidate: _Vector, reference: _Vector) -> list[float]:
    # The reference implementation measures length in bigrams.
    penalty = math.exp(-((candidate.bigrams - reference.bigrams) ** 2) / (2 * _SIGMA**2))
    out = []
    for n in range(_N):
        other = reference.weights[n]
        value = sum(min(w, other[g]) * other[g] for g, w in candidate.weights[n].items() if g in other)
        norm = candidate.norms[n] * reference.norms[n]
        out.append((value / norm if norm else value) * penalty)
    return out
