"""Counting n-grams of tokenised captions."""

from __future__ import annotations

from collections import Counter

Ngram = tuple[str, ...]


def ngrams(tokens: list[str], longest: int = 4) -> list[Counter[Ngram]]:
    """How often each n-gram occurs, for n = 1..`longest`: one counter per n."""
    return [Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)) for n in range(1, longest + 1)]
