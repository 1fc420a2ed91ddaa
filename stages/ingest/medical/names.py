"""Detects people's names in the sentences of a report: after a title or role, or capitalised and in no word list."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import regex

from stages.ingest.medical.lexicon import (
    ABBREVIATIONS,
    FUNCTION,
    NAMED_AFTER,
    NAMED_AFTER_OF,
    is_known,
    is_ordinary,
    load_words,
)
from stages.ingest.medical.name_cues import CREDENTIAL, PERSON_PREDICATE, STRONG_CUE, TITLE, WEAK_CUE

#: Start and end of a name as offsets into a text, the end exclusive.
Span = tuple[int, int]
PARTICLES = load_words("name_particles")
#: Capitalisations that names do not have: "GGOs", "C-reactive", "mRNA", "pH".
FORMULA = regex.compile(r"^\p{Lu}{2,}s$|^\p{Lu}-\p{Ll}+$|^\p{Ll}\p{Lu}|^\p{Lu}\p{Ll}?\p{Lu}{2,}")
#: Abbreviations that are family names too.
_SHORT_SURNAMES = frozenset({"NG", "MA", "AU", "LE", "HO", "AN"})
_WORD = regex.compile(r"\p{L}[\p{L}\p{M}]*(?:['’-]\p{L}[\p{L}\p{M}]*)*\.?")
_BOUNDARY = regex.compile(
    r"(?:^|[.!?:;•\p{C}\p{So}--[\r\n\t]]|\n\s*\n|(?:^|[\s.])\d{1,2}[.)]|\n\s*[-*])[\s\"'(\[]*$", regex.V1
)
_ABBREVIATED = regex.compile(r"(?:\b\p{Lu}|(?i:\b(?:st|mt|vs|no|approx|e\.g|i\.e|cf|drs?|mrs?|ms|prof|rev)))\.[\s]*$")


@dataclass(frozen=True)
class ReportWord:
    """A word of a text, with the stop after it."""

    start: int
    end: int
    text: str

    @property
    def bare(self) -> str:
        return self.text.rstrip(".")

    @property
    def initial(self) -> bool:
        return len(self.bare) == 1 and self.bare.isupper()

    @property
    def capital(self) -> bool:
        # "al-Rashid", "d'Angelo": the capital may follow a particle.
        return self.text[0].isupper() or regex.search(r"^\p{Ll}{1,3}['’-]\p{Lu}", self.text) is not None

    @property
    def all_capitals(self) -> bool:
        return len(self.bare) > 1 and self.bare.isupper()


class NameRecogniser(Protocol):
    """What detects names in a text."""

    def spans(self, text: str) -> list[Span]:
        """(start, end) of every name, or part of one, in a text."""


def merged(spans: Iterable[Span]) -> list[Span]:
    """Spans sorted, and those that overlap or touch joined."""
    disjoint: list[Span] = []
    for start, end in sorted(spans):
        if disjoint and start <= disjoint[-1][1]:
            disjoint[-1] = (disjoint[-1][0], max(end, disjoint[-1][1]))
        else:
            disjoint.append((start, end))
    return disjoint


class NameFinder:
    """Detects names by context and, in sentences of ordinary capitalisation, by their absence from the word lists."""

    def __init__(self, keep: frozenset[str] = frozenset()) -> None:
        """`keep`: further words in lower case that are not names."""
        self._keep = keep

    def spans(self, text: str) -> list[Span]:
        """(start, end) of every name in a text: sorted and disjoint."""
        words = words_of(text)
        return merged([*self._after_cue(text, words), *self._credentials(text, words), *self._capitals(text, words)])

    def _known(self, word: ReportWord) -> bool:
        return is_known(word.bare, self._keep)

    def _after_cue(self, text: str, words: list[ReportWord]) -> Iterator[Span]:
        """Names after a title, a role or a verb of informing ("discussed with")."""
        at = {word.start: number for number, word in enumerate(words)}
        for pattern, strong in ((TITLE, True), (STRONG_CUE, True), (WEAK_CUE, False)):
            for match in pattern.finditer(text):
                number = at.get(match.end())
                if number is None:
                    continue
                certain = strong and not self._not_a_title(match.group(), words[number])
                if (
                    pattern is STRONG_CUE
                    and is_ordinary(words[number].bare)
                    and words[number].bare not in _SHORT_SURNAMES
                ):
                    continue  # "discussed with ICU", "sent to Pathology"
                # "dr smith": who writes a title small writes names small.
                small = pattern is TITLE and match.group()[0].islower()
                end = self._run(text, words, number, certain, small)
                if end is not None and (certain or not called_after(text, words[number].start, end)):
                    yield words[number].start, end

    def _not_a_title(self, title: str, word: ReportWord) -> bool:
        """Whether MR and MS stand for magnetic resonance and multiple sclerosis, or "sister" for a relative."""
        return title.strip() in ("MR", "MS", "mr", "ms", "sister", "miss", "doctor") and self._known(word)

    def _run(self, text: str, words: list[ReportWord], first: int, certain: bool, small: bool) -> int | None:
        """End of the name that begins with word `first`, as an offset into the text; None if it is not a name.

        `certain`: the first word is a name even if listed. `small`: names may be written without capitals.
        """
        end = None
        names = 0
        number = first
        all_capitals = is_all_capitals(text)
        while number < len(words) and names < 5:
            word = words[number]
            if number > first:
                gap = text[words[number - 1].end : word.start]
                joined = not gap.strip() or (gap.strip() == "," and (word.capital or small) and not self._known(word))
                if not joined or "\n\n" in gap:
                    break
            particle = word.text.lower().rstrip(".") in (*PARTICLES, "st") and number + 1 < len(words)
            if particle and (word.text.islower() or names or self._named(words[number + 1], True, small)):
                number += 1
                continue
            if names and word.text.lower() in ("and", "&") and number + 1 < len(words):
                if not self._named(words[number + 1], False, small) or words[number + 1].initial:
                    break
                number += 1
                continue
            surname = names and word.bare in _SHORT_SURNAMES and not NAMED_AFTER.match(text[word.end :].lstrip())
            if not self._named(word, bool(certain and not names) or bool(surname), small) or (
                all_capitals and names and self._known(word)
            ):
                break
            if word.initial and not word.text.endswith(".") and number + 1 < len(words) and not names and not certain:
                break
            end = word.end if word.initial or not word.text.endswith(".") else word.end - 1
            names += 1
            if word.text.endswith(".") and not word.initial:
                break
            number += 1
        return end

    def _named(self, word: ReportWord, certain: bool, small: bool) -> bool:
        if word.initial and word.text.endswith("."):
            return True
        if word.bare.lower() in FUNCTION or (word.bare in ABBREVIATIONS and not certain):
            return False
        if not (word.capital or (small and len(word.bare) > 1)):
            return False
        return certain or word.initial or not self._known(word)

    def _credentials(self, text: str, words: list[ReportWord]) -> Iterator[Span]:
        """Names before a degree ("MD") together with it; the four words in front of it are considered."""
        for match in CREDENTIAL.finditer(text):
            before = [
                number
                for number, word in enumerate(words)
                if word.end <= match.start() + 1 and word.start < match.start()
            ]
            start = None
            for taken, number in enumerate(reversed(before[-4:])):
                word = words[number]
                following = words[number + 1].start if number + 1 < len(words) else len(text)
                gap = text[word.end : following].strip(" ,")
                if (
                    (taken and gap)
                    or not word.capital
                    or word.bare.lower() in FUNCTION
                    or (taken and self._known(word))
                ):
                    break
                if word.bare in ABBREVIATIONS:
                    break
                start = word.start
            if start is not None:
                yield start, match.end()

    def _capitals(self, text: str, words: list[ReportWord]) -> Iterator[Span]:
        """Capitalised words in the middle of a sentence that no list contains; none in title case or all capitals."""
        all_capitals, titled = is_all_capitals(text), is_title_case(words)
        for number, word in enumerate(words):
            if not word.capital or word.initial or self._known(word) or FORMULA.search(word.bare):
                continue
            after = text[word.end :]
            if after[:1].isdigit():  # "SpO2"
                continue
            if word.all_capitals:
                # "SMITH, JOHN"
                comma = regex.match(r",\s+(\p{Lu}[\p{Lu}'’-]+)\b", after)
                if (
                    comma
                    and word.bare not in ABBREVIATIONS - _SHORT_SURNAMES
                    and comma[1] not in ABBREVIATIONS
                    and not is_known(comma[1], self._keep)
                ):
                    yield word.start, word.end + comma.end()
                continue
            if all_capitals:
                continue
            if called_after(text, word.start, word.end):
                continue
            possessive = regex.search(r"['’]s$", word.text) is not None
            first = starts_sentence(text, word.start)
            if first:
                together = number + 1 < len(words) and not after[: words[number + 1].start - word.end].strip()
                following = self._run(text, words, number + 1, False, False) if together else None
                if following is not None and called_after(text, word.start, following):
                    continue
                if not (PERSON_PREDICATE.match(after) or possessive or (following is not None and not titled)):
                    continue
            elif titled and not possessive:
                continue
            start = word.start
            # "J. Smith", "van der Berg", "St. James"
            back = number - 1
            while back >= 0 and not text[words[back].end : words[back + 1].start].strip():
                previous = words[back]
                if not (previous.initial or previous.bare.lower() in (*PARTICLES, "st")):
                    break
                if previous.initial and not previous.text.endswith("."):
                    break
                start, back = previous.start, back - 1
            bare = word.end - (2 if possessive else 0) - (1 if word.text.endswith(".") else 0)
            end = self._run(text, words, number, True, False)
            yield start, max(bare, end or 0) if not possessive else bare


def words_of(text: str) -> list[ReportWord]:
    """The words of a text, without placeholders such as `[name]`."""
    return [ReportWord(m.start(), m.end(), m.group()) for m in _WORD.finditer(text) if not _placeholder(text, m)]


def starts_sentence(text: str, position: int) -> bool:
    """Whether a sentence, a heading's text or an item of a list begins at a position."""
    before = text[:position]
    return _BOUNDARY.search(before) is not None and _ABBREVIATED.search(before) is None


def _placeholder(text: str, match: regex.Match[str]) -> bool:
    return text[max(0, match.start() - 1) : match.start()] == "[" and text[match.end() : match.end() + 1] == "]"


def called_after(text: str, start: int, end: int) -> bool:
    """Whether a name is an eponym: of a sign, a device or a disease."""
    after = regex.sub(r"^['’]s(?=\s)", "", text[end:]).lstrip(" ")
    return NAMED_AFTER.match(after) is not None or NAMED_AFTER_OF.search(text[:start]) is not None


def is_all_capitals(text: str) -> bool:
    """Whether a text is written in capitals: more than 60% of its letters."""
    letters = [c for c in text if c.isalpha()]
    return sum(c.isupper() for c in letters) > 0.6 * len(letters)


def is_title_case(words: list[ReportWord]) -> bool:
    """Whether Most Words Have A Capital, as in a heading: more than 60% of those of four letters and more."""
    long = [word for word in words if len(word.bare) > 3 and not word.all_capitals]
    return len(long) >= 4 and sum(word.capital for word in long) > 0.6 * len(long)
