"""ROUGE-L (Lin 2004) as coco-caption computes it: the best precision and the best recall over the references."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np

from stages.evaluate.metrics.additive import Additive, mean
from stages.evaluate.metrics.captions.words import EncodedCaptions, number, ranges

_BETA2 = 1.2**2
_BITS = 64


def rouge_l(candidates: Sequence[str], references: Sequence[Sequence[str]], batch: int = 8192) -> Additive:
    """ROUGE-L in [0, 1] over tokenised captions, one candidate and one or more references per image.

    The corpus score is the mean over images. `batch` pairs are compared at once; it changes nothing.
    """
    images = len(candidates)
    # Split at single spaces, so an empty caption is one empty token, as in the reference.
    words = number([*candidates, *chain.from_iterable(references)], " ")
    counts = np.fromiter(map(len, references), np.int64, images)
    first = np.repeat(np.arange(images), counts)
    second = np.arange(images, images + len(first))
    common = _common_subsequences(words, first, second, batch)
    lengths = words.lengths
    starts = np.cumsum(counts) - counts
    precision = _best(common / lengths[first], starts)
    recall = _best(common / lengths[second], starts)
    bottom = recall + _BETA2 * precision
    found = (1 + _BETA2) * precision * recall / np.where(bottom > 0, bottom, 1.0)
    return mean("ROUGE_L", found)


def _best(values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    return np.maximum.reduceat(values, starts) if len(starts) else values


def _common_subsequences(words: EncodedCaptions, first: np.ndarray, second: np.ndarray, batch: int) -> np.ndarray:
    """Length of the longest common subsequence of each pair of captions, int64 [pairs].

    Bit-parallel (Hyyrö 2004): a bit per word of the first caption, many pairs at once; the few captions of more than 64
    words go one by one with Python's long integers.
    """
    lengths = words.lengths
    found = np.zeros(len(first), dtype=np.int64)
    short = lengths[first] <= _BITS
    for pair in np.flatnonzero(~short).tolist():
        a, b = (words.ids[words.starts[c] : words.starts[c + 1]].tolist() for c in (first[pair], second[pair]))
        found[pair] = _common_subsequence(a, b)
    # Pairs of like lengths together: little padding.
    pairs = np.flatnonzero(short)
    pairs = pairs[np.lexsort((lengths[first[pairs]], lengths[second[pairs]]))]
    for begin in range(0, len(pairs), batch):
        chosen = pairs[begin : begin + batch]
        found[chosen] = _block(_padded(words, first[chosen], -1), _padded(words, second[chosen], -2))
    return found


def _padded(words: EncodedCaptions, captions: np.ndarray, pad: int) -> np.ndarray:
    """Word ids, int64 [longest, captions]."""
    lengths = words.lengths[captions]
    table = np.full((int(lengths.max(initial=0)), len(captions)), pad, dtype=np.int64)
    column = np.repeat(np.arange(len(captions)), lengths)
    row = ranges(np.zeros_like(lengths), lengths)
    table[row, column] = words.ids[ranges(words.starts[captions], lengths)]
    return table


def _block(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """`a` [up to 64, pairs], `b` [any, pairs] -> int64 [pairs]."""
    zero = np.zeros(a.shape[1], dtype=np.uint64)
    row: np.ndarray = ~zero
    for word in b:
        match = zero.copy()
        for bit, letter in enumerate(a):
            match |= (letter == word).astype(np.uint64) << np.uint64(bit)
        both = row & match
        row = np.bitwise_or(row + both, row - both)
    return np.bitwise_count(~row).astype(np.int64)


def _common_subsequence(a: list[int], b: list[int]) -> int:
    places: dict[int, int] = {}
    for bit, word in enumerate(a):
        places[word] = places.get(word, 0) | 1 << bit
    ones = (1 << len(a)) - 1
    row = ones
    for word in b:
        both = row & places.get(word, 0)
        row = ((row + both) | (row - both)) & ones
    return len(a) - row.bit_count()
