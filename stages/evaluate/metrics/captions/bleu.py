"""BLEU-1..4 (Papineni et al. 2002), corpus and per image, with the smoothing of coco-caption."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from stages.evaluate.metrics.captions.ngrams import Ngram, ngrams

_N = 4
# coco-caption's constants: an n-gram order without candidates divides by SMALL, one without matches counts TINY.
_SMALL = 1e-9
_TINY = 1e-15


@dataclass(frozen=True)
class Bleu:
    """BLEU-1..4 in [0, 1]."""

    corpus: list[float]
    """Four values, from counts summed over the corpus."""
    per_image: list[list[float]]
    """[4][images]."""


@dataclass
class _Counts:
    candidate_length: int
    reference_length: int
    possible: list[int]
    matched: list[int]

    def scores(self) -> list[float]:
        precision, out = 1.0, []
        for n in range(_N):
            precision *= (self.matched[n] + _TINY) / (self.possible[n] + _SMALL)
            out.append(precision ** (1 / (n + 1)))
        ratio = (self.candidate_length + _TINY) / (self.reference_length + _SMALL)
        penalty = math.exp(1 - 1 / ratio) if ratio < 1 else 1.0
        return [score * penalty for score in out]


def bleu(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> Bleu:
    """Over tokenised captions: one candidate and its references per image.

    The reference length is the one closest to the candidate's, the shorter of two equally close.
    """
    counts = [_count(c.split(), [r.split() for r in refs]) for c, refs in zip(candidates, references, strict=True)]
    total = _Counts(
        sum(c.candidate_length for c in counts),
        sum(c.reference_length for c in counts),
        [sum(c.possible[n] for c in counts) for n in range(_N)],
        [sum(c.matched[n] for c in counts) for n in range(_N)],
    )
    per_image = [c.scores() for c in counts]
    return Bleu(total.scores(), [[scores[n] for scores in per_image] for n in range(_N)])


def _count(candidate: list[str], references: list[list[str]]) -> _Counts:
    most: list[dict[Ngram, int]] = [{} for _ in range(_N)]
    for reference in references:
        for n, found in enumerate(ngrams(reference)):
            for ngram, count in found.items():
                most[n][ngram] = max(most[n].get(ngram, 0), count)
    return _Counts(
        len(candidate),
        min((abs(len(r) - len(candidate)), len(r)) for r in references)[1],
        [max(0, len(candidate) - n) for n in range(_N)],
        [
            sum(min(count, most[n].get(ngram, 0)) for ngram, count in found.items())
            for n, found in enumerate(ngrams(candidate))
        ],
    )
