"""All ways in which words of a candidate match words of a reference: exact, stem, synonym, paraphrase."""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

from stages.evaluate.metrics.meteor.text import Lexicon, Text


class Module(IntEnum):
    """The matchers, in the order they run."""

    EXACT = 0
    STEM = 1
    SYNONYM = 2
    PARAPHRASE = 3


class Match(NamedTuple):
    """`length` words of the reference from `start` on match `other_length` of the candidate from `other_start` on."""

    start: int
    length: int
    other_start: int
    other_length: int
    module: int


def find_matches(candidate: Text, reference: Text, lexicon: Lexicon) -> list[list[Match]]:
    """All matches by the position in the reference where they start, in the order of the reference's matchers.

    The order decides which of two equally good alignments is taken. Equal texts are matched exactly only (Denkowski and
    Lavie's code: "prevents beam search errors").
    """
    matches: list[list[Match]] = [[] for _ in range(len(reference))]
    for i, key in enumerate(reference.keys):
        for j in candidate.by_key.get(key, ()):
            matches[i].append(Match(i, 1, j, 1, Module.EXACT))
    if candidate.keys == reference.keys:
        return matches
    _match_stems(matches, candidate, reference)
    _match_synonyms(matches, candidate, reference)
    for start, length, other_start, other_length in _paraphrases(reference, candidate, lexicon):
        matches[start].append(Match(start, length, other_start, other_length, Module.PARAPHRASE))
    for other_start, other_length, start, length in _paraphrases(candidate, reference, lexicon):
        matches[start].append(Match(start, length, other_start, other_length, Module.PARAPHRASE))
    return matches


def _match_stems(matches: list[list[Match]], candidate: Text, reference: Text) -> None:
    keys, by_stem = candidate.keys, candidate.by_stem
    for i, word in enumerate(reference.words):
        for j in by_stem.get(word.stem_key, ()):
            if keys[j] != word.key:
                matches[i].append(Match(i, 1, j, 1, Module.STEM))


def _match_synonyms(matches: list[list[Match]], candidate: Text, reference: Text) -> None:
    others = candidate.with_synsets
    for i, key, synsets in reference.with_synsets:
        for j, other_key, other_synsets in others:
            if key != other_key and not synsets.isdisjoint(other_synsets):
                matches[i].append(Match(i, 1, j, 1, Module.SYNONYM))


def _paraphrases(left: Text, right: Text, lexicon: Lexicon) -> Iterator[tuple[int, int, int, int]]:
    """Start and length in both texts of every phrase of the left one and listed paraphrase of it in the right one.

    By start, length, place of the paraphrase in the list, and start in the right text.
    """
    occurrences = right.by_phrase
    nodes = occurrences.keys()
    for start, phrases in enumerate(left.phrases):
        for length, node in enumerate(phrases, start=1):
            listed = lexicon.paraphrases(node)
            if not listed or listed.isdisjoint(nodes):
                continue
            hits = [hit for hit in nodes if hit in listed]
            if len(hits) > 1:
                hits.sort(key=lexicon.tables.paraphrases(node).index)
            for hit in hits:
                for other_start, other_length in occurrences[hit]:
                    yield start, length, other_start, other_length
