"""Exact rank selection over ranges: which rows are the first n of a group, without sorting or gathering the rows.

Rows are ordered by a key of several unsigned 64-bit words, the last of which belong to a uid, so no two are equal. The
n-th key of each group is found digit by digit (radix selection, 16 bits at a time): every range counts its rows by the
next digit, the sum tells the digit of the n-th, and so on until few rows are left, which the driver sorts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.select.decision import Decision
from stages.select.job import Passes

_BITS = 16
_PER_WORD = 64 // _BITS

Threshold = tuple[int, ...] | bool
"""The largest key that is chosen, or whether all rows are."""


@dataclass(frozen=True)
class Ranked:
    """Rows of a range that take part, and what orders them."""

    rows: NDArray[np.int64]
    group: NDArray[np.integer]
    """Group of each."""
    words: tuple[Callable[[], NDArray[np.uint64]], ...]
    """The words of the keys, the most significant first; a word is computed when it is needed."""


Keys = Callable[..., Ranked]
"""Function of a decision (and of further arguments) that ranks rows."""


def first_of_groups(
    passes: Passes, keys: Keys, args: tuple[Any, ...], wanted: Callable[[int, int], int]
) -> dict[int, Threshold]:
    """Group -> what :func:`chosen` takes, so that exactly `wanted(group, rows of the group)` rows are chosen."""
    found: dict[int, Threshold] = {}
    missing: dict[int, int] = {}  # group -> place of the row that is looked for, among those with its prefix
    prefixes: dict[int, tuple[int, ...]] | None = None
    while prefixes is None or prefixes:
        ready: dict[int, tuple[int, ...]] = {}
        longer: dict[int, tuple[int, ...]] = {}
        for group, counts in _counted(passes, keys, args, prefixes).items():
            if prefixes is None:
                size = int(counts.sum())
                number = wanted(group, size)
                if number <= 0 or number >= size:
                    found[group] = number > 0
                    continue
                missing[group] = number
            before = np.cumsum(counts)
            digit = int(np.searchsorted(before, missing[group]))
            missing[group] -= int(before[digit] - counts[digit])
            prefix = (*(prefixes[group] if prefixes else ()), digit)
            (ready if counts[digit] <= passes.job.limits.candidates else longer)[group] = prefix
        if ready:
            for group, rows in _gathered(passes, keys, args, ready).items():
                order = np.lexsort(rows.T[::-1])
                found[group] = tuple(int(word) for word in rows[order[missing[group] - 1]])
        prefixes = longer
    return found


def chosen(ranked: Ranked, thresholds: Mapping[int, Threshold]) -> NDArray[np.bool_]:
    """Which of the ranked rows are among the first of their group, bool [rows]."""
    result = np.zeros(len(ranked.rows), dtype=bool)
    for group, threshold in thresholds.items():
        mine = ranked.group == group
        if isinstance(threshold, bool):
            if threshold:
                result |= mine
            continue
        equal = mine
        for word, last in zip(ranked.words, threshold, strict=True):
            values = word()
            result |= equal & (values < np.uint64(last))
            equal = equal & (values == np.uint64(last))
            if not equal.any():
                break
        result |= equal
    return result


def ascending(values: NDArray[np.float64]) -> NDArray[np.uint64]:
    """Unsigned integers in the order of the numbers (none of which is NaN); 0.0 and -0.0 are equal."""
    bits = (values + 0.0).view(np.uint64)
    sign = np.uint64(1 << 63)
    return np.where(bits & sign, ~bits, bits | sign)


def _counted(
    passes: Passes, keys: Keys, args: tuple[Any, ...], prefixes: Mapping[int, tuple[int, ...]] | None
) -> dict[int, NDArray[np.int64]]:
    """Group -> rows with its prefix by their next digit, int64 [65536]."""
    total: dict[int, NDArray[np.int64]] = {}
    for part in passes.read(_count, keys, args, prefixes):
        for group, (digits, counts) in part.items():
            if group not in total:
                total[group] = np.zeros(1 << _BITS, dtype=np.int64)
            total[group][digits] += counts
    return dict(sorted(total.items()))


def _count(
    decision: Decision, keys: Keys, args: tuple[Any, ...], prefixes: Mapping[int, tuple[int, ...]] | None
) -> dict[int, tuple[NDArray[np.int64], NDArray[np.int64]]]:
    ranked = keys(decision, *args)
    if prefixes is None:
        prefixes = {int(group): () for group in np.unique(ranked.group)}
    counted = {}
    for group, prefix in prefixes.items():
        rows = _with_prefix(ranked, group, prefix)
        if len(rows):
            counts = np.bincount(_digit(ranked, len(prefix), rows), minlength=1 << _BITS)
            digits = np.flatnonzero(counts)
            counted[group] = digits, counts[digits]
    return counted


def _gathered(
    passes: Passes, keys: Keys, args: tuple[Any, ...], prefixes: Mapping[int, tuple[int, ...]]
) -> dict[int, NDArray[np.uint64]]:
    """Group -> the keys of all rows with its prefix, uint64 [rows, words]."""
    parts: dict[int, list[NDArray[np.uint64]]] = {group: [] for group in prefixes}
    for part in passes.read(_gather, keys, args, prefixes):
        for group, rows in part.items():
            parts[group].append(rows)
    return {group: np.concatenate(rows) for group, rows in parts.items()}


def _gather(
    decision: Decision, keys: Keys, args: tuple[Any, ...], prefixes: Mapping[int, tuple[int, ...]]
) -> dict[int, NDArray[np.uint64]]:
    ranked = keys(decision, *args)
    found = {}
    for group, prefix in prefixes.items():
        rows = _with_prefix(ranked, group, prefix)
        if len(rows):
            found[group] = np.stack([word()[rows] for word in ranked.words], axis=1)
    return found


def _with_prefix(ranked: Ranked, group: int, prefix: tuple[int, ...]) -> NDArray[np.int64]:
    """Places of a group's rows whose keys begin with these digits."""
    rows = np.flatnonzero(ranked.group == group)
    for place, digit in enumerate(prefix):
        rows = rows[_digit(ranked, place, rows) == digit]
    return rows


def _digit(ranked: Ranked, place: int, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    shift = np.uint64(64 - _BITS * (place % _PER_WORD + 1))
    digits = (ranked.words[place // _PER_WORD]()[rows] >> shift) & np.uint64((1 << _BITS) - 1)
    return digits.astype(np.int64)
