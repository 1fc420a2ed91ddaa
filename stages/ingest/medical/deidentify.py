"""Removing who a report is about from its text: identifiers the file itself states, and rules for all others.

What is looked for are the eighteen identifiers of the HIPAA safe-harbour rule (45 CFR 164.514(b)(2)) that occur in
radiology reports. What the rules find and miss on a planted set is in docs/medical.md; no rules find every name in
free text, which is why only the findings and the impression are kept and a private source's text stays inside.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

import regex

from stages.ingest.medical.lexicon import is_ordinary
from stages.ingest.medical.names import NameFinder
from stages.ingest.medical.numbers import NUMBERS, PLACES

#: Lines of a report's own head or foot that name somebody; `___` and the like stand for names already taken out.
_STATED = regex.compile(
    r"(?im)^[ \t]*(?:patient(?:'?s)?(?:[ \t]+name)?|name|(?:referring|ordering|requesting|attending|admitting|primary)"
    r"(?:[ \t]+(?:physician|doctor|provider|md|clinician))?|physician|provider|radiologist|resident"
    r"|technologist|fellow|surgeon"
    r"|(?:electronically[ \t]+)?(?:signed|dictated|interpreted|transcribed|approved|verified|reviewed"
    r"|read)(?:[ \t]+by)?)[ \t]*[:=][ \t]*"
    r"(?P<who>[^\n\d]{2,60}?)(?=[ \t]{2,}|[ \t]*$|[ \t]*[\d(;|]|[ \t]+(?:mrn|dob|date|on|at)\b)"
)
_STATED_NUMBER = regex.compile(
    r"(?im)\b(?:mrn|medical[ \t]+record(?:[ \t]+(?:number|no\.?))?|patient[ \t]+id|accession(?:[ \t]+(?:number"
    r"|no\.?))?|acc(?:[ \t]*#)?)[ \t]*[:=#][ \t]*"
    r"(?P<what>[\w-]*\d[\w-]*)"
)
_NO_NAME = regex.compile(
    r"(?i)^(?:m\.?d\.?|d\.?o\.?|r\.?n\.?|ph\.?d\.?|dr|mr|mrs|ms|prof|unknown|none|anonymous|the|by|and|_+)$"
)


def stated(report: str) -> tuple[list[str], list[str]]:
    """(names, numbers) that a whole report states of its patient and readers, to be looked for in its sections."""
    names = [regex.sub(r"[,;/]", " ", match["who"]) for match in _STATED.finditer(report)]
    kept = [
        " ".join(p for p in name.split() if not _NO_NAME.match(p.strip(".")) and not is_ordinary(p)) for name in names
    ]
    # Four words at the most are a name; more is a sentence that began like one.
    return [name for name in kept if 0 < len(name.split()) <= 4], [m["what"] for m in _STATED_NUMBER.finditer(report)]


class Scrubber:
    """Replaces identifiers by what they are: `[name]`, `[date]`, `[record]`."""

    def __init__(
        self, names: Iterable[str] = (), numbers: Iterable[str] = (), keep: Iterable[str] = (), rules: bool = True
    ) -> None:
        """What the file itself states: `names` of people (DICOM's PN form too), each part of which is looked for;
        `numbers` and other phrases (record numbers, an institution), looked for as they stand. `keep`: words that are
        no names although they have a capital. Without `rules` only what is stated is removed."""
        self._names = NameFinder(frozenset(word.lower() for word in keep)) if rules else None
        parts = {part for name in names for part in regex.split(r"[\s^=,.]+", name) if part}
        parts |= {written for part in parts for written in _spellings(part)}
        phrases = {" ".join(number.split()) for number in numbers}
        # The same record number is written with and without its prefix.
        phrases |= {digits for number in phrases for digits in regex.findall(r"\d{4,}", number)}
        ideographs = {part for part in parts if len(part) >= 2 and _SCRIPTS_WITHOUT_SPACES.search(part)}
        parts -= ideographs
        self._known = tuple(
            (label, pattern)
            for label, words, flags, alone in (
                ("record", {phrase for phrase in phrases if len(phrase) >= 4}, regex.IGNORECASE, True),
                ("name", {part for part in parts if len(part) >= 3}, regex.IGNORECASE, True),
                # A surname may have two letters ("Ng"), where only its own spelling can be meant.
                ("name", {part.capitalize() for part in parts if len(part) == 2 and part.isalpha()}, 0, True),
                ("name", ideographs, 0, False),
            )
            if (pattern := _any_of(words, flags, alone)) is not None
        )

    def knows(self, text: str) -> bool:
        """Whether a text holds one of the file's own identifiers."""
        return any(pattern.search(text) for _, pattern in self._known)

    def __call__(self, text: str) -> str:
        """The text without identifiers, white space tidied."""
        text = unicodedata.normalize("NFC", text)
        rules: Sequence[tuple[str, regex.Pattern[str]]] = NUMBERS if self._names else ()
        for label, pattern in (*rules, *self._known, *(PLACES if self._names else ())):
            text = pattern.sub(f"[{label}]", text)
        if self._names is not None:
            for start, end in reversed(self._names.spans(text)):
                text = f"{text[:start]}[name]{text[end:]}"
        text = regex.sub(r"\[name\](?:(?:[\s,^]|\bet\b|\b\p{Lu}\.)+\[name\])+", "[name]", text)
        return " ".join(text.split())


_SCRIPTS_WITHOUT_SPACES = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}\p{Thai}]")
_EXPANDED = {"ä": "ae", "ö": "oe", "ü": "ue", "ø": "oe", "å": "aa", "ß": "ss", "æ": "ae"}


def _spellings(name: str) -> set[str]:
    """Other ways in which the same name is typed: without accents, with umlauts spelt out, in composed characters."""
    composed = unicodedata.normalize("NFC", name)
    plain = "".join(c for c in unicodedata.normalize("NFD", name) if not unicodedata.combining(c))
    spelt = "".join(_EXPANDED.get(c, _EXPANDED.get(c.lower(), c)) for c in composed)
    return {composed, plain, spelt}


def _any_of(words: Iterable[str], flags: int, alone: bool) -> regex.Pattern[str] | None:
    """A pattern of any of the words, longest first; `alone` as words of their own."""
    ordered = sorted(set(words), key=lambda word: (-len(word), word))
    if not ordered:
        return None
    choice = "|".join(map(regex.escape, ordered))
    return regex.compile(rf"(?<![\p{{L}}\d])(?:{choice})(?![\p{{L}}\d])" if alone else rf"(?:{choice})", flags)
