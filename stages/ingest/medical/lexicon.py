"""Word lists that separate names from vocabulary: capitalised words of radiology reports that identify nobody.

The lists are text files in `words/`, one entry a line; lines that begin with `#` are comments. A word missing from them
costs a `[name]` where an eponym stood and never leaves a name in the text: the rule that reads the lists takes every
other capitalised word inside a sentence for a name. A configuration adds words of its own with `keep_words`.
"""

from __future__ import annotations

from pathlib import Path

import regex

_FOLDER = Path(__file__).with_name("words")


def load_words(name: str) -> frozenset[str]:
    """The entries of `words/<name>.txt`."""
    lines = (_FOLDER / f"{name}.txt").read_text("utf-8").splitlines()
    return frozenset(line for line in lines if line and not line.startswith("#"))


def _any_of(name: str) -> str:
    """A regular expression for any entry of a word list."""
    return f"(?:{'|'.join(regex.escape(word) for word in sorted(load_words(name)))})"


EPONYMS = load_words("eponyms")
PROPER_NOUNS = load_words("proper_nouns")
ORDINARY = load_words("ordinary")
FUNCTION = load_words("function")
ABBREVIATIONS = load_words("abbreviations")

#: Matches behind an eponym: "(Foley) catheter".
NAMED_AFTER = regex.compile(rf"{_any_of('named_after')}s?(?!\p{{L}})", regex.IGNORECASE)
#: Matches at the end of what stands before an eponym: "circle of (Willis)".
NAMED_AFTER_OF = regex.compile(rf"(?i:{_any_of('named_after_of')})\s+of\s+(?:the\s+)?$")
#: Endings of medical words, which names do not have.
MEDICAL_ENDINGS = regex.compile(rf"{_any_of('medical_endings')}$")


def is_ordinary(word: str) -> bool:
    """Whether a word is an ordinary or function word or an abbreviation; eponyms and proper nouns are none of these."""
    return word.lower() in ORDINARY or word.lower() in FUNCTION or word in ABBREVIATIONS


def is_known(word: str, extra: frozenset[str] = frozenset()) -> bool:
    """Whether a word, or every part of a hyphenated one, is in a list (whatever its case) or has a medical ending.

    `extra`: further known words in lower case.
    """
    lower = word.lower().replace("’", "'").removesuffix("'s").removesuffix("'")
    if lower in extra or _is_listed(lower, extra):
        return True
    parts = [part for part in lower.split("-") if part]
    return len(parts) > 1 and all(len(part) == 1 or _is_listed(part, extra) for part in parts)


def _is_listed(lower: str, extra: frozenset[str]) -> bool:
    if any(lower in words for words in (ORDINARY, FUNCTION, PROPER_NOUNS, EPONYMS, extra)):
        return True
    singular = lower.removesuffix("s")
    return singular in ORDINARY or singular in extra or (len(lower) > 5 and MEDICAL_ENDINGS.search(lower) is not None)
