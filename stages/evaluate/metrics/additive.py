"""A score of many samples as a function of sums over them: what a mean, corpus BLEU and corpus METEOR have in common.

Means, intervals and domains all follow from it: they are the same function of other sums.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Additive:
    """One or several scores (BLEU-1..4) of n samples."""

    names: tuple[str, ...]
    """Of the scores, as they are reported."""
    per_sample: np.ndarray
    """float64 [n, names]: each sample scored alone."""
    sums: np.ndarray
    """float64 [n, k]: what each sample adds."""
    of_sums: Callable[[np.ndarray], np.ndarray]
    """[..., k] -> [..., names]: the scores of a set of samples whose columns add up to these."""

    def total(self, chosen: np.ndarray | None = None) -> dict[str, float]:
        """Name -> score over all samples, or over those chosen (a mask or indices of samples; at least one)."""
        rows = self.sums if chosen is None else self.sums[chosen]
        return dict(zip(self.names, self.of_sums(rows.sum(axis=0)).tolist(), strict=True))

    def take(self, rows: np.ndarray) -> Additive:
        """Of some samples alone."""
        return Additive(self.names, self.per_sample[rows], self.sums[rows], self.of_sums)

    def only(self, names: Collection[str]) -> Additive:
        """Some of the scores, those named."""
        kept = [i for i, name in enumerate(self.names) if name in names]
        if len(kept) == len(self.names):
            return self
        chosen = tuple(self.names[i] for i in kept)
        return Additive(chosen, self.per_sample[:, kept], self.sums, lambda sums: self.of_sums(sums)[..., kept])


def mean(name: str, values: Sequence[float] | np.ndarray) -> Additive:
    """A score that is the mean of its samples' scores."""
    each = np.asarray(values, dtype=np.float64)
    return Additive((name,), each[:, None], np.stack([each, np.ones_like(each)], axis=1), _ratio)


def _ratio(sums: np.ndarray) -> np.ndarray:
    return sums[..., :1] / sums[..., 1:]


def mean_by_group(name: str, values: np.ndarray, groups: Mapping[str, np.ndarray]) -> Additive:
    """The mean over all samples, and of each group (name -> mask bool [n]); the scores are named by group.

    A group none of whose samples is among those summed is NaN in what `of_sums` returns.
    """
    names = (name, *groups)
    masks = np.stack([np.ones(len(values), dtype=bool), *groups.values()], axis=1)
    sums = np.concatenate([values[:, None] * masks, masks], axis=1, dtype=np.float64)

    def of_sums(found: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            return found[..., : len(names)] / found[..., len(names) :]

    return Additive(names, np.asarray(values, dtype=np.float64)[:, None].repeat(len(names), axis=1), sums, of_sums)
