"""Removing who a report is about from its text: identifiers the file itself states, and rules for all others.

What is looked for are the eighteen identifiers of the HIPAA safe-harbour rule (45 CFR 164.514(b)(2)) that occur in
radiology reports. Rules cannot catch every name in free text; that is why only the findings and the impression are
kept, where names seldom are, and why a private source's text never leaves the workspace.
"""

from __future__ import annotations

from collections.abc import Iterable

import regex

_NAME = r"\p{Lu}(?:\p{Ll}[\p{L}'’]*(?:-\p{L}[\p{L}'’]*)*|['’]\p{Lu}\p{L}+(?:-\p{L}+)*|\.)"
_NAMES = rf"{_NAME}(?:,?\s+{_NAME}){{0,3}}"
_SHOUTED = r"\p{Lu}{2,}(?:-\p{Lu}+)*(?:,?\s+\p{Lu}{1,}\b(?!:)\.?){0,3}"
_SIGNED = r"(?:signed|dictated|reviewed|read|interpreted|transcribed|approved|verified|performed|reported)\s+by"
_MONTH = (
    r"(?:(?-i:May|MAY|March|MARCH)|jan(?:uary)?|feb(?:ruary)?|mar|apr(?:il)?|june?|july?|aug(?:ust)?|sept?(?:ember)?"
    r"|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)\.?"
)
_STREET = r"(?:street|st|avenue|ave|road|rd|boulevard|blvd|lane|ln|drive|court|ct|place|pl|way|square|terrace|highway)"
_RECORD = (
    r"(?:mrn|medical\s+record(?:\s+(?:number|no))?|record(?:\s+(?:number|no))|patient\s*id|acc(?:ession)?(?:\s+(?:number|no))?"
    r"|account(?:\s+(?:number|no))?|encounter(?:\s+(?:number|no))?|ssn|social\s+security(?:\s+(?:number|no))?|case(?:\s+no))"
)
_ROLE = (
    r"(?:discussed|communicated)\s+with|(?:reported|communicated|called|conveyed|paged)\s+to"
    r"|(?:patient|physician|radiologist|attending|resident|technologist|clinician|surgeon|nurse|provider)(?:\s+name)?\s*:"
    r"|referring\s+(?:physician|doctor)|notified|name\s*:|(?:cc|attn)\s*:|(?:patient|pt)\s+(?=\p{Lu}\p{Ll})"
)

_Rules = tuple[tuple[str, regex.Pattern[str]], ...]


def _compiled(*rules: tuple[str, str]) -> _Rules:
    return tuple((label, regex.compile(pattern)) for label, pattern in rules)


#: What it stands for, and its pattern; in this order, the more specific first. Numbers of all sorts go before the
#: file's own identifiers, which would otherwise leave half an address behind, and names after them.
_NUMBERS = _compiled(
    ("email", r"(?i)[\w.+-]+@[\w-]+(?:\.[\w-]+)+"),
    ("url", r"(?i)\b(?:https?://|www\.)\S+"),
    ("record", rf"(?i)\b{_RECORD}\b\s*(?:is\s+|[:#.]\s*)*[A-Z0-9][A-Z0-9-]*\d[A-Z0-9-]*"),
    ("record", r"\b\d{3}-\d{2}-\d{4}\b"),
    ("phone", r"(?i)\b(?:tel|phone|fax|pager|beeper|cell|mobile|ext(?:ension)?)\b[.:#\s]*\+?\d[\d\s().-]{2,}\d"),
    ("phone", r"(?<!\d)(?:\+?\d{1,3}[\s.-])?(?:\(\d{3}\)\s?|\d{3}[\s.-])\d{3}[\s.-]\d{4}\b"),
    ("date", r"\b\d{4}[-/.]\d{1,2}[-/.]\d{1,2}(?:[T ]\d{1,2}:\d{2}(?::\d{2})?)?"),
    ("date", r"\b\d{1,2}[-/.]\d{1,2}[-/.](?:19|20)?\d{2}\b"),
    ("date", rf"(?i)\b\d{{1,2}}(?:st|nd|rd|th)?[\s-]+(?:of\s+)?{_MONTH}(?:[,\s-]+(?:19|20)\d{{2}})?\b"),
    ("date", rf"(?i)\b{_MONTH}\s+\d{{1,2}}(?:st|nd|rd|th)?\b(?:,?\s+(?:19|20)\d{{2}})?"),
    ("date", rf"(?i)\b{_MONTH},?\s+(?:19|20)\d{{2}}\b"),
    ("date", r"(?i)(?<=\b(?:on|dated|from|since|of|until)\s)\d{1,2}/\d{1,2}\b(?!/)"),
    ("date", r"(?i)(?<=\b(?:in|since|from|of|until|year)\s)(?:19|20)\d{2}\b"),
    ("time", r"(?i)\b\d{1,2}:\d{2}(?::\d{2})?(?:\s*[ap]\.?m\b\.?)?|\b\d{1,2}\s*[ap]\.?m\b\.?"),
    ("age", r"(?i)\b(?:9\d|1[0-2]\d)(?=[\s-]*(?:years?|yrs?|y/?o)\b)"),
    (
        "address",
        rf"\b\d{{1,5}}[A-Z]?\s+(?:\p{{Lu}}[\p{{L}}.'’-]*\s+){{1,4}}(?i:{_STREET})\b\.?"
        r"(?:,?\s+(?:(?i:apt|apartment|suite|unit)\.?\s*\w+))?(?:,\s*\p{Lu}[\p{L}\s]*)?(?:,?\s+\p{Lu}{2}\s+\d{5}(?:-\d{4})?)?",
    ),
    ("address", r"\b\p{Lu}{2}\s+\d{5}(?:-\d{4})?\b"),
)
_NAMED = _compiled(
    (
        "hospital",
        rf"(?:{_NAME}\s+){{1,4}}(?i:hospital|clinic|medical\s+cent(?:er|re)|infirmary|health\s+system)\b",
    ),
    ("name", rf"(?i:\b(?:dr|mr|mrs|ms|miss|prof|professor|doctor|sr|rev)\b\.?)\s+(?:{_NAMES}|{_SHOUTED})"),
    ("name", rf"(?<=(?i:\b{_SIGNED})[\s:]*)(?:{_NAMES}|{_SHOUTED})"),
    (
        "name",
        rf"\b{_NAME}(?:\s+{_NAME}){{0,3}},?\s+(?:M\.?D\.?|D\.?O\.?|R\.?N\.?|Ph\.?D\.?|FRCR|FRCPC|MBBS|PA-C|NP)(?!\w)",
    ),
    ("name", rf"(?<=(?i:\b(?:{_ROLE}))\s*)(?:(?i:the)\s+)?{_NAMES}"),
    ("number", r"(?<![\d.])\d{6,}(?![\d.]*\d)"),
)


class Scrubber:
    """Replaces identifiers by what they are: `[name]`, `[date]`, `[record]`."""

    def __init__(self, names: Iterable[str] = (), numbers: Iterable[str] = ()) -> None:
        """What the file itself states: `names` of people (DICOM's PN form too), each part of which is looked for;
        `numbers` and other phrases (record numbers, an institution), looked for as they stand."""
        parts = {part for name in names for part in regex.split(r"[\s^=,.]+", name) if part}
        phrases = {" ".join(number.split()) for number in numbers}
        # The same record number is written with and without its prefix.
        phrases |= {digits for number in phrases for digits in regex.findall(r"\d{4,}", number)}
        self._known = tuple(
            (label, pattern)
            for label, words, flags in (
                ("record", {phrase for phrase in phrases if len(phrase) >= 4}, regex.IGNORECASE),
                ("name", {part for part in parts if len(part) >= 3}, regex.IGNORECASE),
                # A surname may have two letters ("Ng"), where only its own spelling can be meant.
                ("name", {part.capitalize() for part in parts if len(part) == 2 and part.isalpha()}, 0),
            )
            if (pattern := _any_of(words, flags)) is not None
        )

    def knows(self, text: str) -> bool:
        """Whether a text holds one of the file's own identifiers."""
        return any(pattern.search(text) for _, pattern in self._known)

    def __call__(self, text: str) -> str:
        """The text without identifiers, white space tidied."""
        for label, pattern in (*_NUMBERS, *self._known, *_NAMED):
            text = pattern.sub(f"[{label}]", text)
        text = regex.sub(r"\[name\](?:[\s,^]+\[name\])+", "[name]", text)
        return " ".join(text.split())


def _any_of(words: Iterable[str], flags: int) -> regex.Pattern[str] | None:
    ordered = sorted(set(words), key=lambda word: (-len(word), word))
    if not ordered:
        return None
    return regex.compile(rf"(?<![\p{{L}}\d])(?:{'|'.join(map(regex.escape, ordered))})(?![\p{{L}}\d])", flags)
