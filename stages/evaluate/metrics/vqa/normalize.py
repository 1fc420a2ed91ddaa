"""When two answers count as the same: the official evaluation's cleaning and normalisation."""

from __future__ import annotations

import re

from stages.evaluate.metrics.vqa.words import ARTICLES, CONTRACTIONS, NUMBERS, PUNCTUATION

_MARK = re.compile("[" + re.escape("".join(PUNCTUATION)) + "]")
_COMMA_IN_NUMBER = re.compile(r"\d,\d")
_FULL_STOP = re.compile(r"\.(?!\d)")
# The official code passes a flag where `re.sub` takes a count, and so replaces at most this many full stops.
_MOST_FULL_STOPS = int(re.UNICODE)
#: Words that are written otherwise or left out: few answers hold one.
_CHANGED = frozenset([*NUMBERS, *CONTRACTIONS, *ARTICLES])


def clean(answer: str) -> str:
    """What is done to every answer, even where annotators agree: newlines and tabs are spaces, ends are stripped."""
    return answer.replace("\n", " ").replace("\t", " ").strip()


def normalize(answer: str) -> str:
    """An answer after the official processing of punctuation, number words, articles and contractions."""
    text = answer
    if _MARK.search(answer):
        every = _COMMA_IN_NUMBER.search(answer) is not None
        for mark in PUNCTUATION:
            if mark in answer:
                # A comma between digits, or the mark beside a space, and it vanishes everywhere; else it separates.
                alone = every or f"{mark} " in answer or f" {mark}" in answer
                text = text.replace(mark, "" if alone else " ")
    if "." in text:
        text = _FULL_STOP.sub("", text, count=_MOST_FULL_STOPS)
    words = text.lower().split()
    if not _CHANGED.isdisjoint(words):
        words = [NUMBERS.get(word, word) for word in words]
        words = [CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES]
    return " ".join(words)
