"""Sorted words with sets of numbers, looked up in memory-mapped arrays."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping

import numpy as np


class WordTable:
    """Words in byte order, as views of one text and of where each starts in it."""

    def __init__(self, text: memoryview, starts: memoryview) -> None:
        """`text` bytes, `starts` uint32 [words + 1]."""
        self._text = text
        self._starts = starts
        self._range = range(len(starts) - 1)

    def find(self, word: str) -> int:
        """Index of a word, or -1."""
        key = word.encode("utf-8", "surrogatepass")
        at = bisect_left(self._range, key, key=self._word)
        return at if at < len(self._range) and self._word(at) == key else -1

    def _word(self, at: int) -> bytes:
        return bytes(self._text[self._starts[at] : self._starts[at + 1]])


class Numbers:
    """A set of numbers for each of some words."""

    def __init__(self, words: WordTable, starts: memoryview, values: memoryview) -> None:
        """`starts` uint32 [words + 1], `values` uint32 [numbers]."""
        self._words = words
        self._starts = starts
        self._values = values

    def get(self, word: str) -> frozenset[int] | None:
        """The numbers of a word, None where it is not listed."""
        at = self._words.find(word)
        return None if at < 0 else frozenset(self._values[self._starts[at] : self._starts[at + 1]].tolist())


def pack_words(words: Iterable[bytes], name: str) -> dict[str, np.ndarray]:
    """Arrays of a `Words`, under keys that start with `name`. The words are distinct and in byte order."""
    held = list(words)
    return {
        f"{name}.text": np.frombuffer(b"".join(held), np.uint8),
        f"{name}.starts": _offsets(len(word) for word in held),
    }


def pack_numbers(numbers: Mapping[str, Iterable[int]], name: str) -> dict[str, np.ndarray]:
    """Arrays of a `Numbers`, under keys that start with `name`."""
    ordered = sorted((word.encode("utf-8"), sorted(values)) for word, values in numbers.items())
    return {
        **pack_words((word for word, _ in ordered), name),
        f"{name}.first": _offsets(len(values) for _, values in ordered),
        f"{name}.values": np.array([v for _, values in ordered for v in values], np.uint32),
    }


def open_words(arrays: Mapping[str, memoryview], name: str) -> WordTable:
    """What `pack_words` made."""
    return WordTable(arrays[f"{name}.text"], arrays[f"{name}.starts"])


def open_numbers(arrays: Mapping[str, memoryview], name: str) -> Numbers:
    """What `pack_numbers` made."""
    return Numbers(open_words(arrays, name), arrays[f"{name}.first"], arrays[f"{name}.values"])


def _offsets(lengths: Iterable[int]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(np.fromiter(lengths, np.int64))]).astype(np.uint32)
