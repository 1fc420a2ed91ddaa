"""Which n-grams candidates and references hold, how often, and which they share: what BLEU and CIDEr-D are made from.

N-grams are numbers: that of an n-gram is found from the number of its first n - 1 words and its last word. So
counting is sorting, and both metrics are sums over arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from stages.evaluate.metrics.captions.words import EncodedCaptions, number, renumbered

LONGEST = 4


@dataclass(frozen=True)
class Occurrences:
    """Distinct (caption, n-gram) pairs of one n, by caption and n-gram."""

    caption: np.ndarray
    """int64 [pairs], ascending."""
    ngram: np.ndarray
    """int64 [pairs]: the n-gram's number."""
    count: np.ndarray
    """int64 [pairs]: how often the caption holds it."""


@dataclass(frozen=True)
class Order:
    """All n-grams of one n."""

    candidates: Occurrences
    """Captions are candidates, so images."""
    references: Occurrences
    """Captions are references, counted over all images."""
    place: np.ndarray
    """int64 [pairs of references]: the pair of `candidates` with the same image and n-gram, -1 where there is none."""
    image: np.ndarray
    """int64 [pairs of references]: the image."""
    position: np.ndarray
    """int64 [n-grams]: a place in `Counted.words` where each n-gram stands."""


@dataclass(frozen=True)
class Counted:
    """Candidates and references of some images, counted."""

    images: int
    candidate_lengths: np.ndarray
    """int64 [images], in words."""
    reference_lengths: np.ndarray
    """int64 [references]."""
    image_of: np.ndarray
    """int64 [references]: each reference's image, ascending."""
    orders: tuple[Order, ...]
    """For n = 1 .. LONGEST."""
    words: EncodedCaptions
    """Of all captions, candidates first."""

    def text(self, order: int, ngrams: np.ndarray) -> list[str]:
        """N-grams of `orders[order]` as words joined by single spaces."""
        vocabulary, ids = self.words.vocabulary, self.words.ids
        places = self.orders[order].position[ngrams]
        return [" ".join(vocabulary[ids[p + k]] for k in range(order + 1)) for p in places.tolist()]


def count(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> Counted:
    """Count tokenised captions, one candidate and one or more references per image; words are split at white space.

    Raises ValueError when the two differ in number.
    """
    if len(candidates) != len(references):
        raise ValueError(f"{len(candidates)} candidates for the references of {len(references)} images")
    images = len(candidates)
    words = number([*candidates, *chain.from_iterable(references)])
    image_of = np.repeat(np.arange(images), np.fromiter(map(len, references), np.int64, images))
    caption = np.repeat(np.arange(len(words.lengths)), words.lengths)
    left = words.starts[1:][caption] - np.arange(len(words.ids))  # words from here to the caption's end
    places = np.arange(len(words.ids))
    ids, kinds = words.ids, len(words.vocabulary)
    bits = _bits(kinds)
    orders = []
    for n in range(1, LONGEST + 1):
        if n > 1:
            stays = np.flatnonzero(left[places] >= n)
            places = places[stays]
            ids, kinds = renumbered(ids[stays] << bits | words.ids[places + n - 1])
        orders.append(_order(caption[places], ids, kinds, places, images, image_of))
    lengths = words.lengths
    return Counted(images, lengths[:images], lengths[images:], image_of, tuple(orders), words)


def _bits(kinds: int) -> int:
    """Bits that hold every number below `kinds`."""
    return max(1, (kinds - 1).bit_length())


def _order(
    caption: np.ndarray, ids: np.ndarray, kinds: int, places: np.ndarray, images: int, image_of: np.ndarray
) -> Order:
    """`caption`, `ids` (the n-gram) and `places` (in all words) of every n-gram of one n, in the order of the text."""
    bits = _bits(kinds)
    position = np.zeros(kinds, dtype=np.int64)
    position[ids] = places
    first_reference = int(np.searchsorted(caption, images))
    own, mine = _occurrences(caption[:first_reference], ids[:first_reference], bits)
    others, _ = _occurrences(caption[first_reference:] - images, ids[first_reference:], bits)
    image = image_of[others.caption]
    theirs = image << bits | others.ngram
    place = np.full(len(theirs), -1, dtype=np.int64)
    if len(mine):
        found = np.searchsorted(mine, theirs)
        hit = np.flatnonzero(mine[np.minimum(found, len(mine) - 1)] == theirs)
        place[hit] = found[hit]
    return Order(own, others, place, image, position)


def _occurrences(caption: np.ndarray, ids: np.ndarray, bits: int) -> tuple[Occurrences, np.ndarray]:
    """And their keys, ascending: the caption above the n-gram's bits."""
    keys = np.sort(caption << bits | ids)
    new = first_of_equals(keys)
    count = np.diff(new, append=len(keys))
    keys = keys[new]
    return Occurrences(keys >> bits, keys & ((1 << bits) - 1), count), keys


def first_of_equals(ascending: np.ndarray) -> np.ndarray:
    """Where each distinct value of a sorted array first stands, int64."""
    differs = np.ones(len(ascending), dtype=bool)
    np.not_equal(ascending[1:], ascending[:-1], out=differs[1:])
    return np.flatnonzero(differs)
