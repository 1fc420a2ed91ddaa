"""Detects names that nothing announces, by their spelling and their neighbours, in any capitalisation.

Beside the rules of `names.py`, which need a title, a role, or a capital in the middle of an ordinary sentence.
"""

from __future__ import annotations

import regex

from stages.ingest.medical.lexicon import ABBREVIATIONS, is_known
from stages.ingest.medical.name_scores import name_score
from stages.ingest.medical.names import (
    FORMULA,
    PARTICLES,
    ReportWord,
    Span,
    called_after,
    is_all_capitals,
    is_title_case,
    starts_sentence,
    words_of,
)

#: Added to a word's score: a capital within a sentence of ordinary capitalisation, a name beside it, an initial beside
#: it. Chosen on the tuning half of `benchmarks/planted_names.py`.
_CAPITAL, _BESIDE_NAME, _BESIDE_INITIAL = 3.0, 3.0, 2.0
#: Added for few letters in capitals in a text of ordinary capitalisation, which are rather an abbreviation.
_ABBREVIATED = {2: -8.0, 3: -8.0, 4: -4.0, 5: -2.0}
#: Between an eponym and what is named after it.
_STAGE = regex.compile(r"(?:\s+(?:type|grade|stage|class))?(?:\s+(?:[IVX]+|\d)[AB]?)?(?=\s|$)|")
#: What may stand between the parts of one name.
_JOINED = regex.compile(r"\s*,?\s*")


class UncuedNameFinder:
    """Detects names by :func:`name_score` and context."""

    def __init__(self, threshold: float, keep: frozenset[str] = frozenset()) -> None:
        """`threshold`: least log-odds of a name; lower detects more names and takes more words that are none.
        `keep`: words in lower case that are not names."""
        self._threshold = threshold
        self._keep = keep

    def spans(self, text: str) -> list[Span]:
        """(start, end) of every part of a name in a text: sorted and disjoint."""
        words = words_of(text)
        all_capitals, titled = is_all_capitals(text), is_title_case(words)
        scores = [self._score(text, word, all_capitals, titled) for word in words]
        named = {number for number, score in enumerate(scores) if score >= self._threshold}
        # A name beside a name: "Joy Banks", of which either might be a word.
        found = set(named)
        for number, score in enumerate(scores):
            beside = any(near in named and _adjacent(text, words, number, near) for near in (number - 1, number + 1))
            if beside and score + _BESIDE_NAME >= self._threshold:
                found.add(number)
        return [self._span(text, words, number, found) for number in sorted(found)]

    def _score(self, text: str, word: ReportWord, all_capitals: bool, titled: bool) -> float:
        bare = regex.sub(r"['’][sS]$", "", word.bare)
        if word.initial or len(bare) < 2 or is_known(bare, self._keep) or bare.upper() in ABBREVIATIONS:
            return -float("inf")
        if FORMULA.search(bare) and not word.all_capitals:
            return -float("inf")
        around = text[word.start - 1 : word.start] + text[word.end : word.end + 1]
        # "Salter-Harris II fracture"
        end = word.end + len(_STAGE.match(text, word.end)[0])
        if (
            regex.search(r"[\d_/+]", around)
            or called_after(text, word.start, word.end)
            or called_after(text, word.start, end)
        ):
            return -float("inf")
        parts = bare.split("-")
        # "Bin-Salman": a particle tells nothing of its own.
        score = name_score("-".join(part for part in parts[:-1] if part.lower() not in PARTICLES) + "-" + parts[-1])
        if word.all_capitals and not all_capitals:
            score += _ABBREVIATED.get(len(bare), 0.0)
        capital = word.capital and not (word.all_capitals or all_capitals or titled)
        if capital and not starts_sentence(text, word.start):
            score += _CAPITAL
        if regex.search(r"(?<!\p{L})\p{Lu}\.?\s$", text[max(0, word.start - 4) : word.start]) and not starts_sentence(
            text, word.start
        ):
            score += _BESIDE_INITIAL
        return score

    def _span(self, text: str, words: list[ReportWord], number: int, found: set[int]) -> Span:
        """A word with the particles before it ("van der")."""
        word = words[number]
        start, back = word.start, number - 1
        while back >= 0 and words[back].bare.lower() in (*PARTICLES, "st") and back not in found:
            if text[words[back].end : words[back + 1].start].strip():
                break
            start, back = words[back].start, back - 1
        possessive = regex.search(r"['’][sS]$", word.text)
        return start, word.end - (2 if possessive else len(word.text) - len(word.bare))


def _adjacent(text: str, words: list[ReportWord], one: int, other: int) -> bool:
    if not 0 <= other < len(words):
        return False
    left, right = words[min(one, other)], words[max(one, other)]
    return _JOINED.fullmatch(text[left.end : right.start]) is not None and (left.text == left.bare or left.initial)
