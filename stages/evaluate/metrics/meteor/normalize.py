"""METEOR's own tokenization of English (`-norm`): punctuation separated, contractions split, quotes and dashes unified.

It runs on text that may be tokenized already. Each rule is one of the reference's, in its order: a rule sees what the
ones before it left, and a character consumed by one match cannot be the context of the next.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

_ALPHA = (
    "A-Za-z\u0160\u017d\u0161\u017e\u0178\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u017e\u0400-\u04ff\u0500-\u0527"
    "\ua640-\ua66e\ua67e-\ua697\u1d00-\u1d7f"
)
_ALNUM = "0-9" + _ALPHA
#: Java's whitespace in patterns, and the shorter list by which its tokenizer splits.
_JAVA_SPACE = " \t\n\x0b\f\r"
_SEPARATORS = re.compile("[ \t\n\r\f]+")
#: What Java's String.trim takes off.
_TRIMMED = "".join(map(chr, range(33)))

_BEFORE_DOTS = (
    (re.compile(f"([^{_ALNUM}{_JAVA_SPACE}.'`,\\-\u2018\u2019])"), r" \1 "),
    (re.compile(r"\.(\.+)"), r" DOTMULTI\1"),
)
_DOTS_THEN_OTHER = re.compile(r"DOTMULTI\.([^.])")
_AFTER_DOTS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile("([^0-9]),([^0-9])"), r"\1 , \2"),
    (re.compile("([0-9]),([^0-9])"), r"\1 , \2"),
    (re.compile("([^0-9]),([0-9])"), r"\1 , \2"),
    (re.compile("[`\u2018\u2019]"), "'"),
    (re.compile("[\u201c\u201d]|''"), ' " '),
    (re.compile("\u2013"), "-"),
    (re.compile("--"), "-"),
    (re.compile(f"([{_ALNUM}.])-([{_ALNUM}])"), r"\1 \2"),
    (re.compile(f"([^{_ALPHA}])'([^{_ALPHA}])"), r"\1 ' \2"),
    (re.compile(f"([^{_ALPHA}0-9])'([{_ALPHA}])"), r"\1 ' \2"),
    (re.compile(f"([{_ALPHA}])'([^{_ALPHA}])"), r"\1 ' \2"),
    (re.compile(f"([{_ALPHA}])'([{_ALPHA}])"), r"\1 '\2"),
    (re.compile("([0-9])'(s)"), r"\1 '\2"),
)
_WIDE_SPACES = re.compile("[ \u2000-\u200a\u202f\u205f\u3000\u00a0]+")
_HAS_LETTER = re.compile(f"[{_ALPHA}]")
_LOWER_START = re.compile("[a-z]")
_DIGIT_START = re.compile("[0-9]")
#: Texts that no rule changes.
_PLAIN = re.compile("[a-z0-9 ]*")


def one_candidate(text: str) -> str:
    """A candidate as pycocoevalcap passes it on: without `|||`, which separates texts there."""
    return _one_line(text).replace("|||", "").replace("  ", " ")


def one_reference(text: str) -> str:
    """A reference as one text. pycocoevalcap would take one with `|||` or a line break for several."""
    return _one_line(text).replace("|||", "")


def _one_line(text: str) -> str:
    # Half a surrogate pair has no bytes to send to the reference; a question mark stands for it on either way.
    text = text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")
    return text.replace("\r", " ").replace("\n", " ")


def read_prefixes(text: str) -> dict[str, bool]:
    """A Moses list of words that keep their full stop: word → whether only before a number."""
    found: dict[str, bool] = {}
    for line in text.splitlines():
        parts = [part for part in _SEPARATORS.split(line) if part]
        if parts and not parts[0].startswith("#"):
            found[parts[0]] = parts[1:2] == ["#NUMERIC_ONLY#"]
    return found


def normalizer(prefixes: Mapping[str, bool]) -> Callable[[str], list[str]]:
    """A function from a text to its lower-case words. `prefixes`: see `read_prefixes`."""

    def words_of(text: str) -> list[str]:
        if _PLAIN.fullmatch(text):
            return text.split()
        spaced = " ".join(_stops([word for word in _SEPARATORS.split(_punctuation(text)) if word], prefixes))
        while "DOTDOTMULTI" in spaced:
            spaced = spaced.replace("DOTDOTMULTI", "DOTMULTI.")
        spaced = _WIDE_SPACES.sub(" ", spaced.replace("DOTMULTI", ".")).strip(_TRIMMED)
        return [word for word in _SEPARATORS.split(spaced.lower()) if word]

    return words_of


def _punctuation(text: str) -> str:
    text = f" {text.strip(_TRIMMED)} "
    for pattern, by in _BEFORE_DOTS:
        text = pattern.sub(by, text)
    while "DOTMULTI." in text:
        text = _DOTS_THEN_OTHER.sub(r"DOTDOTMULTI \1", text).replace("DOTMULTI.", "DOTDOTMULTI")
    for pattern, by in _AFTER_DOTS:
        text = pattern.sub(by, text)
    return text


def _stops(words: list[str], prefixes: Mapping[str, bool]) -> list[str]:
    """Take the full stop off every word but abbreviations; "u.s." loses its stops."""
    out = []
    for i, word in enumerate(words):
        if len(word) < 2 or word[-1] != ".":
            out.append(word)
            continue
        base, following = word[:-1], words[i + 1] if i + 1 < len(words) else ""
        only_before_numbers = prefixes.get(base)
        if "." in base and _HAS_LETTER.search(base):
            out.append(word.replace(".", ""))
        elif (
            only_before_numbers is False
            or _LOWER_START.match(following)
            or (only_before_numbers and _DIGIT_START.match(following))
        ):
            out.append(word)
        else:
            out.append(f"{base} .")
    return out
