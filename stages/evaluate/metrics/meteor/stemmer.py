"""The English stemmer of Snowball ("Porter 2") as it was in 2010, the version in METEOR 1.5.

Snowball has changed its rules since, so a current library of it cannot be relied on for the same stems.
The rules: snowballstem.org/algorithms/english/stemmer.html.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_VOWELS = frozenset("aeiouy")
#: A consonant that lets a short syllable end before it is none of these; Y is a y that acts as a consonant.
_NO_SHORT_END = _VOWELS | frozenset("wxY")
_BEFORE_LI = frozenset("cdeghkmnrt")
_DOUBLES = ("bb", "dd", "ff", "gg", "mm", "nn", "pp", "rr", "tt")

_WHOLE_WORDS = {
    **{word: word for word in ("andes", "atlas", "bias", "cosmos", "howe", "news", "sky")},
    "skis": "ski",
    "skies": "sky",
    "dying": "die",
    "lying": "lie",
    "tying": "tie",
    "idly": "idl",
    "gently": "gentl",
    "ugly": "ugli",
    "early": "earli",
    "only": "onli",
    "singly": "singl",
}
_KEPT_AFTER_PLURALS = frozenset(
    ("succeed", "proceed", "exceed", "canning", "inning", "earring", "herring", "outing"),
)
_LONG_PREFIX = re.compile("arsen|commun|gener")
_REGION = re.compile("[aeiouy][^aeiouy]", re.DOTALL)
_CONSONANT_Y = re.compile("([aeiouy])y")

_STEP_2 = {
    "tional": "tion",
    "enci": "ence",
    "anci": "ance",
    "abli": "able",
    "entli": "ent",
    "izer": "ize",
    "ization": "ize",
    "ational": "ate",
    "ation": "ate",
    "ator": "ate",
    "alism": "al",
    "aliti": "al",
    "alli": "al",
    "fulness": "ful",
    "ousli": "ous",
    "ousness": "ous",
    "iveness": "ive",
    "iviti": "ive",
    "biliti": "ble",
    "bli": "ble",
    "ogi": "og",
    "fulli": "ful",
    "lessli": "less",
    "li": "",
}
_STEP_3 = {
    "tional": "tion",
    "ational": "ate",
    "alize": "al",
    "icate": "ic",
    "iciti": "ic",
    "ical": "ic",
    "ful": "",
    "ness": "",
    "ative": "",
}
_STEP_4 = dict.fromkeys(
    (
        *("al", "ance", "ence", "er", "ic", "able", "ible", "ant", "ement", "ment", "ent"),
        *("ism", "ate", "iti", "ous", "ive", "ize", "ion"),
    ),
    "",
)


def stem(word: str) -> str:
    """The stem of a lower-case word. Characters other than a-z act as consonants.

    The reference counts UTF-16 units; characters outside the BMP, which take two, are always words of their own by the
    time they come here.
    """
    if word in _WHOLE_WORDS:
        return _WHOLE_WORDS[word]
    if len(word) < 3:
        return word
    word = word[1:] if word[0] == "'" else word
    word = "Y" + word[1:] if word[:1] == "y" else word
    word = _CONSONANT_Y.sub(r"\1Y", word)
    first, second = _regions(word)
    word = _plural(word)
    if word not in _KEPT_AFTER_PLURALS:
        word = _past(word, first)
        word = _final_y(word)
        word = _step_2(word, first)
        word = _step_3(word, first, second)
        word = _step_4(word, second)
        word = _final_e(word, first, second)
    return word.replace("Y", "y")


def _regions(word: str) -> tuple[int, int]:
    """Where R1 and R2 start: each after the next consonant that follows a vowel."""
    prefix = _LONG_PREFIX.match(word)
    match = prefix or _REGION.search(word)
    if match is None:
        return len(word), len(word)
    first = match.end()
    after = _REGION.search(word, first)
    return first, after.end() if after else len(word)


def _has_vowel(text: str) -> bool:
    return not _VOWELS.isdisjoint(text)


def _short(text: str) -> bool:
    """Whether a text ends in a short syllable."""
    if len(text) < 2 or text[-2] not in _VOWELS:
        return False
    if len(text) == 2:
        return text[-1] not in _VOWELS
    return text[-1] not in _NO_SHORT_END and text[-3] not in _VOWELS


def _longest(word: str, endings: Mapping[str, str]) -> str | None:
    for length in range(min(7, len(word)), 1, -1):
        if word[-length:] in endings:
            return word[-length:]
    return None


def _plural(word: str) -> str:
    for ending in ("'s'", "'s", "'"):
        if word.endswith(ending):
            word = word[: -len(ending)]
            break
    if word.endswith("sses"):
        return word[:-2]
    if word.endswith(("ied", "ies")):
        return word[:-2] if len(word) > 4 else word[:-1]
    if word.endswith("s") and not word.endswith(("us", "ss")) and _has_vowel(word[:-2]):
        return word[:-1]
    return word


def _past(word: str, first: int) -> str:
    for ending in ("eedly", "eed"):
        if word.endswith(ending):
            at = len(word) - len(ending)
            return word[:at] + "ee" if at >= first else word
    for ending in ("ingly", "edly", "ing", "ed"):
        if word.endswith(ending):
            break
    else:
        return word
    base = word[: -len(ending)]
    if not _has_vowel(base):
        return word
    if base.endswith(("at", "bl", "iz")):
        return base + "e"
    if base.endswith(_DOUBLES):
        return base[:-1]
    return base + "e" if len(base) == first and _short(base) else base


def _final_y(word: str) -> str:
    if len(word) > 2 and word[-1] in "yY" and word[-2] not in _VOWELS:
        return word[:-1] + "i"
    return word


def _step_2(word: str, first: int) -> str:
    ending = _longest(word, _STEP_2)
    if ending is None or (at := len(word) - len(ending)) < first:
        return word
    before = word[at - 1 : at]
    if (ending == "ogi" and before != "l") or (ending == "li" and before not in _BEFORE_LI):
        return word
    return word[:at] + _STEP_2[ending]


def _step_3(word: str, first: int, second: int) -> str:
    ending = _longest(word, _STEP_3)
    if ending is None or (at := len(word) - len(ending)) < (second if ending == "ative" else first):
        return word
    return word[:at] + _STEP_3[ending]


def _step_4(word: str, second: int) -> str:
    ending = _longest(word, _STEP_4)
    if ending is None or (at := len(word) - len(ending)) < second:
        return word
    if ending == "ion" and word[at - 1 : at] not in ("s", "t"):
        return word
    return word[:at]


def _final_e(word: str, first: int, second: int) -> str:
    at = len(word) - 1
    if word.endswith("e"):
        if at >= second or (at >= first and not _short(word[:-1])):
            return word[:-1]
    elif word.endswith("ll") and at >= second:
        return word[:-1]
    return word
