"""A score of many samples as a function of sums over them: what a mean, corpus BLEU and corpus METEOR have in common.

Means, intervals and domains all follow from it: they are the same function of other sums.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np


class Additive:
    """One or several scores (BLEU-1..4) of n samples."""

    names: tuple[str, ...]
    """Names of the scores, as they are reported."""
    per_sample: np.ndarray
    """float64 [n, names]: each sample scored alone."""
    sums: np.ndarray
    """float64 [n, k]: what each sample adds."""
    of_sums: Callable[[np.ndarray], np.ndarray]
    """[..., k] -> [..., names]: the scores of a set of samples whose columns add up to these."""

    def __init__(
        self,
        names: tuple[str, ...],
        per_sample: np.ndarray,
        sums: np.ndarray,
        of_sums: Callable[[np.ndarray], np.ndarray],
    ) -> None:
        self.names, self.per_sample, self.sums, self.of_sums = names, per_sample, sums, of_sums

    def total(self, chosen: np.ndarray | None = None) -> dict[str, float]:
        """Name -> score over all samples, or over those chosen (a mask or indices of samples; at least one)."""
        rows = self.sums if chosen is None else self.sums[chosen]
        return dict(zip(self.names, self.of_sums(rows.sum(axis=0)).tolist(), strict=True))

    def take(self, rows: np.ndarray) -> Additive:
        """The same scores of some samples alone."""
        return Additive(self.names, self.per_sample[rows], self.sums[rows], self.of_sums)

    def only(self, names: Collection[str]) -> Additive:
        """Only the named scores."""
        columns = [i for i, name in enumerate(self.names) if name in names]
        if len(columns) == len(self.names):
            return self
        chosen = tuple(self.names[i] for i in columns)
        return Additive(chosen, self.per_sample[:, columns], self.sums, lambda sums: self.of_sums(sums)[..., columns])


def mean(name: str, values: Sequence[float] | np.ndarray) -> Additive:
    """A score that is the mean of its samples' scores."""
    each = np.asarray(values, dtype=np.float64)
    return Additive((name,), each[:, None], np.stack([each, np.ones_like(each)], axis=1), _ratio)


def _ratio(sums: np.ndarray) -> np.ndarray:
    return sums[..., :1] / sums[..., 1:]


@dataclass(frozen=True)
class Labels:
    """A label per sample, as numbers."""

    names: list[str]
    """The distinct labels, sorted."""
    numbers: np.ndarray
    """int64 [n]: each sample's label among the names."""


def labels(of_samples: Sequence[str]) -> Labels:
    """Number the labels of samples."""
    number = {label: i for i, label in enumerate(sorted(set(of_samples)))}
    return Labels(list(number), np.fromiter(map(number.__getitem__, of_samples), np.int64, len(of_samples)))


class _MeanByGroup(Additive):
    """Its wide tables are made when they are first used: the means alone need only counts."""

    def __init__(self, name: str, values: np.ndarray, kinds: Mapping[str, Labels], scale: float) -> None:
        self.names = (name, *(f"{kind}.{label}" for kind, of in kinds.items() for label in of.names))
        self._values = np.asarray(values, dtype=np.float64)
        self._scaled = scale * self._values
        self._scale = scale
        self._kinds = kinds

    @cached_property
    def per_sample(self) -> np.ndarray:  # type: ignore[override]
        return np.repeat(self._scaled[:, None], len(self.names), axis=1)

    @cached_property
    def sums(self) -> np.ndarray:  # type: ignore[override]
        masks = [np.ones((len(self._values), 1), dtype=bool)]
        masks += [of.numbers[:, None] == np.arange(len(of.names)) for of in self._kinds.values()]
        member = np.concatenate(masks, axis=1)
        return np.concatenate([self._scaled[:, None] * member, member], axis=1, dtype=np.float64)

    @staticmethod
    def of_sums(found: np.ndarray) -> np.ndarray:  # type: ignore[override]
        """A group none of whose samples is among those summed is NaN."""
        half = found.shape[-1] // 2
        with np.errstate(invalid="ignore"):
            means: np.ndarray = found[..., :half] / found[..., half:]
        return means

    def total(self, chosen: np.ndarray | None = None) -> dict[str, float]:
        if chosen is not None:
            return super().total(chosen)
        # The order of these operations decides the last digit of scores that evaluate artifacts hold.
        means = [(self._scale * self._values.mean())[None]]
        for of in self._kinds.values():
            counts = np.bincount(of.numbers, minlength=len(of.names))
            means.append(np.bincount(of.numbers, weights=self._scaled, minlength=len(of.names)) / counts)
        return dict(zip(self.names, np.concatenate(means).tolist(), strict=True))


def mean_by_group(name: str, values: np.ndarray, kinds: Mapping[str, Labels], scale: float = 1) -> Additive:
    """The mean over all samples, `name`, and over those of each label of each kind, `<kind>.<label>`.

    All scores are multiplied by `scale`: 100 makes percent of `values` in [0, 1].
    """
    return _MeanByGroup(name, values, kinds, scale)
