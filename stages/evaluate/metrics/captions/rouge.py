"""ROUGE-L (Lin 2004) as coco-caption computes it: the best precision and the best recall over the references."""

from __future__ import annotations

from collections.abc import Sequence

_BETA2 = 1.2**2


def rouge_l(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """Score in [0, 1] of each image, over tokenised captions; the corpus score is the mean."""
    return [_rouge_l(candidate, refs) for candidate, refs in zip(candidates, references, strict=True)]


def _rouge_l(candidate: str, references: Sequence[str]) -> float:
    # Split at single spaces, so an empty caption is one empty token, as in the reference.
    words = candidate.split(" ")
    precision = recall = 0.0
    for reference in references:
        other = reference.split(" ")
        common = _common_subsequence(words, other)
        precision = max(precision, common / len(words))
        recall = max(recall, common / len(other))
    if not precision or not recall:
        return 0.0
    return ((1 + _BETA2) * precision * recall) / (recall + _BETA2 * precision)


def _common_subsequence(first: list[str], second: list[str]) -> int:
    """Length of the longest common subsequence."""
    above = [0] * (len(second) + 1)
    for a in first:
        row = [0]
        for j, b in enumerate(second):
            row.append(above[j] + 1 if a == b else max(above[j + 1], row[j]))
        above = row
    return above[-1]
