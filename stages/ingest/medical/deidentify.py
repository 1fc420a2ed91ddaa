"""De-identification of report text: identifiers that the file itself states, and rules for all others.

Covered are those of the eighteen identifiers of the HIPAA safe-harbour rule (45 CFR 164.514(b)(2)) that occur in
radiology reports. docs/medical.md has the recall on planted identifiers. No set of rules detects every name in free
text, which is why only the findings and the impression are kept and a private source's text stays inside.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

import regex

from stages.ingest.medical.identifier_patterns import IDENTIFIERS, INSTITUTIONS_AND_CODES
from stages.ingest.medical.lexicon import is_ordinary
from stages.ingest.medical.name_scores import NAME_THRESHOLD
from stages.ingest.medical.names import NameFinder, NameRecogniser, merged
from stages.ingest.medical.recogniser import Unlisted
from stages.ingest.medical.uncued_names import UncuedNameFinder

#: Lines of a report's header or footer that name somebody; `___` and the like stand for names already removed.
_STATED_NAME = regex.compile(
    r"(?im)^[ \t]*(?:patient(?:'?s)?(?:[ \t]+name)?|name|(?:referring|ordering|requesting|attending|admitting|primary)"
    r"(?:[ \t]+(?:physician|doctor|provider|md|clinician))?|physician|provider|radiologist|resident"
    r"|technologist|fellow|surgeon"
    r"|(?:electronically[ \t]+)?(?:signed|dictated|interpreted|transcribed|approved|verified|reviewed"
    r"|read)(?:[ \t]+by)?)[ \t]*[:=][ \t]*"
    r"(?P<name>[^\n\d]{2,60}?)(?=[ \t]{2,}|[ \t]*$|[ \t]*[\d(;|]|[ \t]+(?:mrn|dob|date|on|at)\b)"
)
_STATED_NUMBER = regex.compile(
    r"(?im)\b(?:mrn|medical[ \t]+record(?:[ \t]+(?:number|no\.?))?|patient[ \t]+id|accession(?:[ \t]+(?:number"
    r"|no\.?))?|acc(?:[ \t]*#)?)[ \t]*[:=#][ \t]*"
    r"(?P<number>[\w-]*\d[\w-]*)"
)
_NOT_A_NAME = regex.compile(
    r"(?i)^(?:m\.?d\.?|d\.?o\.?|r\.?n\.?|ph\.?d\.?|dr|mr|mrs|ms|prof|unknown|none|anonymous|the|by|and|_+)$"
)


def stated_identifiers(report: str) -> tuple[list[str], list[str]]:
    """(names, numbers) that a whole report states about its patient and readers, to be removed from its sections."""
    names = [regex.sub(r"[,;/]", " ", match["name"]) for match in _STATED_NAME.finditer(report)]
    kept = [
        " ".join(p for p in name.split() if not _NOT_A_NAME.match(p.strip(".")) and not is_ordinary(p))
        for name in names
    ]
    # A name has at most four words; more is a sentence that begins like such a line.
    return [name for name in kept if 0 < len(name.split()) <= 4], [m["number"] for m in _STATED_NUMBER.finditer(report)]


class Scrubber:
    """Replaces identifiers in a text by their kind: `[name]`, `[date]`, `[record]`."""

    def __init__(
        self,
        names: Iterable[str] = (),
        numbers: Iterable[str] = (),
        keep: Iterable[str] = (),
        rules: bool = True,
        name_threshold: float | None = NAME_THRESHOLD,
        recogniser: NameRecogniser | None = None,
    ) -> None:
        """`names`: people that the file itself names (in DICOM's PN form too); every part of a name is removed.
        `numbers`: its record numbers, institutions and other phrases, removed as they stand. `keep`: words that are not
        names. Without `rules` only `names` and `numbers` are removed. `name_threshold`: of :class:`UncuedNameFinder`;
        None leaves it out. `recogniser`: one more, whose names go as well."""
        kept = frozenset(word.lower() for word in keep)
        self._rules = rules
        self._recognisers: list[NameRecogniser] = [NameFinder(kept)] if rules else []
        if rules and name_threshold is not None:
            self._recognisers.append(UncuedNameFinder(name_threshold, kept))
        if rules and recogniser is not None:
            self._recognisers.append(Unlisted(recogniser, kept))
        parts = {part for name in names for part in regex.split(r"[\s^=,.]+", name) if part}
        parts |= {written for part in parts for written in _spellings(part)}
        phrases = {" ".join(number.split()) for number in numbers}
        # A record number is written with and without its prefix.
        phrases |= {digits for number in phrases for digits in regex.findall(r"\d{4,}", number)}
        ideographs = {part for part in parts if len(part) >= 2 and _SCRIPTS_WITHOUT_SPACES.search(part)}
        parts -= ideographs
        self._known = tuple(
            (label, pattern)
            for label, words, flags, whole_words in (
                ("record", {phrase for phrase in phrases if len(phrase) >= 4}, regex.IGNORECASE, True),
                ("name", {part for part in parts if len(part) >= 3}, regex.IGNORECASE, True),
                # A surname of two letters ("Ng") counts in this capitalisation only.
                ("name", {part.capitalize() for part in parts if len(part) == 2 and part.isalpha()}, 0, True),
                ("name", ideographs, 0, False),
            )
            if (pattern := _any_of(words, flags, whole_words)) is not None
        )

    def contains_known(self, text: str) -> bool:
        """Whether a text contains one of the identifiers that the file itself states."""
        return any(pattern.search(text) for _, pattern in self._known)

    def __call__(self, text: str) -> str:
        """The text without identifiers, white space normalised."""
        text = unicodedata.normalize("NFC", text)
        rules: Sequence[tuple[str, regex.Pattern[str]]] = IDENTIFIERS if self._rules else ()
        for label, pattern in (*rules, *self._known, *(INSTITUTIONS_AND_CODES if self._rules else ())):
            text = pattern.sub(f"[{label}]", text)
        spans = [span for recogniser in self._recognisers for span in recogniser.spans(text)]
        for start, end in reversed(merged(spans)):
            text = f"{text[:start]}[name]{text[end:]}"
        text = regex.sub(r"\[name\](?:(?:[\s,^]|\bet\b|\b\p{Lu}\.)+\[name\])+", "[name]", text)
        return " ".join(text.split())


_SCRIPTS_WITHOUT_SPACES = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}\p{Thai}]")
_EXPANDED = {"ä": "ae", "ö": "oe", "ü": "ue", "ø": "oe", "å": "aa", "ß": "ss", "æ": "ae"}


def _spellings(name: str) -> set[str]:
    """Spellings of a name: without accents, with umlauts spelt out, in composed characters."""
    composed = unicodedata.normalize("NFC", name)
    plain = "".join(c for c in unicodedata.normalize("NFD", name) if not unicodedata.combining(c))
    spelt = "".join(_EXPANDED.get(c, _EXPANDED.get(c.lower(), c)) for c in composed)
    return {composed, plain, spelt}


def _any_of(words: Iterable[str], flags: int, whole_words: bool) -> regex.Pattern[str] | None:
    """A pattern that matches any of the words, longest first; None without words."""
    ordered = sorted(set(words), key=lambda word: (-len(word), word))
    if not ordered:
        return None
    choice = "|".join(map(regex.escape, ordered))
    return regex.compile(rf"(?<![\p{{L}}\d])(?:{choice})(?![\p{{L}}\d])" if whole_words else rf"(?:{choice})", flags)
