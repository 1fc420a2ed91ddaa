"""Left and right in English texts: detected, and swapped for a flipped image where the text certainly stays true."""

from __future__ import annotations

import re

#: What each word is when the image is flipped; `lft`, `rt` and `rgt` are what annotators in a hurry write.
_OTHER = {"left": "right", "right": "left", "lft": "rt", "rt": "lft", "rgt": "lft"}
# With what may follow in the same word: leftmost, right-hand, leftward(s), left-handed, left's.
_SIDE = re.compile(r"\b(left|right|lft|rgt|rt)(?=(?:-?(?:most|hand(?:ed|er)?|wards?|side))?s?\b)", re.IGNORECASE)
# Before these, a side is meant whatever follows: "on the left in the back".
_MEANT = "".join(rf"(?<!\b{word}\s)" for word in ("the", "on", "at", "to", "far", "top", "bottom", "upper", "lower"))
# "right" that means directly or correct, "left" that means remaining or departed, and turning: no word to swap is sure.
_UNSURE = re.compile(
    rf"\b{_MEANT}right\s+(?:next|behind|in|above|below|beneath|under|over|beside|before|after|there|here|now|at|by|up|"
    r"against|through|across|away|past|where|outside|inside|near|angles?)\b"
    r"|\b(?:is|are|was|were|has|have|had|what's|just|be|been|being)\s+left\b(?!\s+of\b)"
    rf"|\b{_MEANT}left\s+(?:over|out|behind|alone|open|on|in|him|her|them|it|his|their)\b"
    r"|\ball\s+right\b|\b(?:counter|anti)?-?clockwise\b|\b(?:star|lar)board\b|\bport\s+side\b|\b[lr]\b",
    re.IGNORECASE,
)
# Never swapped, only detected: a text that has such a word by chance costs a flip, no more.
_FOREIGN = re.compile(
    r"\b(?:links|rechts|linken?|rechten?|gauche|droite?|izquierd[ao]|derech[ao]|sinistr[ao]|destr[ao])\b|左|右",
    re.IGNORECASE,
)


def mentions_side(text: str) -> bool:
    """Whether a text may be untrue of the flipped image; also in German, French, Spanish, Italian and CJK."""
    return bool(_SIDE.search(text) or _UNSURE.search(text) or _FOREIGN.search(text))


def flip_text(text: str) -> str | None:
    """The text with left and right swapped, true of the flipped image; None where its words do not decide that."""
    return None if _UNSURE.search(text) else _SIDE.sub(_swapped, text)


def _swapped(match: re.Match[str]) -> str:
    word = match[1]
    other = _OTHER[word.lower()]
    return other.upper() if word.isupper() else other.capitalize() if word[0].isupper() else other
