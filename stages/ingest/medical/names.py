"""Finding people's names in a report's sentences: what stands behind a title, and capitals that no word explains."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import regex

from stages.ingest.medical.contexts import CREDENTIAL, DOES, STRONG, TITLE, WEAK
from stages.ingest.medical.lexicon import (
    ACRONYMS,
    FUNCTION,
    NAMED_THINGS,
    THINGS_OF,
    is_known,
    is_ordinary,
    words_of,
)

#: Words that belong to a name without a capital of their own.
_PARTICLE = words_of("van von der den ter ten de del della di da dos das du la le bin ibn el al af zu y")
#: "GGOs", "C-reactive", "mRNA", "pH": no way to write a name.
_FORMULA = regex.compile(r"^\p{Lu}{2,}s$|^\p{Lu}-\p{Ll}+$|^\p{Ll}\p{Lu}|^\p{Lu}\p{Ll}?\p{Lu}{2,}")
#: Abbreviations that are family names too.
_SHORT = frozenset({"NG", "MA", "AU", "LE", "HO", "AN"})
_WORD = regex.compile(r"\p{L}[\p{L}\p{M}]*(?:['’-]\p{L}[\p{L}\p{M}]*)*\.?")
_APART = regex.compile(r"\s*,?\s*")
_BOUNDARY = regex.compile(
    r"(?:^|[.!?:;•\p{C}\p{So}--[\r\n\t]]|\n\s*\n|(?:^|[\s.])\d{1,2}[.)]|\n\s*[-*])[\s\"'(\[]*$", regex.V1
)
_ABBREVIATED = regex.compile(r"(?:\b\p{Lu}|(?i:\b(?:st|mt|vs|no|approx|e\.g|i\.e|cf|drs?|mrs?|ms|prof|rev)))\.[\s]*$")


@dataclass(frozen=True)
class _Word:
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
    def shouted(self) -> bool:
        return len(self.bare) > 1 and self.bare.isupper()


class NameFinder:
    """Finds names by their surroundings and, in sentences with ordinary capitals, by being in no list of words."""

    def __init__(self, keep: frozenset[str] = frozenset()) -> None:
        """`keep`: further words, in lower case, that are no names."""
        self._keep = keep

    def spans(self, text: str) -> list[tuple[int, int]]:
        """(start, end) of every name in a text, sorted, none inside another."""
        words = [_Word(m.start(), m.end(), m.group()) for m in _WORD.finditer(text) if not _placeholder(text, m)]
        found = [*self._behind(text, words), *self._credentials(text, words), *self._capitals(text, words)]
        merged: list[tuple[int, int]] = []
        for start, end in sorted(found):
            if merged and start <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
            else:
                merged.append((start, end))
        return merged

    def _known(self, word: _Word) -> bool:
        return is_known(word.bare, self._keep)

    def _behind(self, text: str, words: list[_Word]) -> Iterator[tuple[int, int]]:
        """Names behind a title, a role, or somebody told."""
        at = {word.start: number for number, word in enumerate(words)}
        for pattern, sure in ((TITLE, True), (STRONG, True), (WEAK, False)):
            for match in pattern.finditer(text):
                number = at.get(match.end())
                if number is None:
                    continue
                certain = sure and not self._modality(match.group(), words[number])
                if pattern is STRONG and is_ordinary(words[number].bare) and words[number].bare not in _SHORT:
                    continue  # "discussed with ICU", "sent to Pathology"
                # "dr smith": who writes a title small writes names small.
                small = pattern is TITLE and match.group()[0].islower()
                end = self._run(text, words, number, certain, small)
                if end is not None and (certain or not _called_after(text, words[number].start, end)):
                    yield words[number].start, end

    def _modality(self, title: str, word: _Word) -> bool:
        """Whether MR and MS are magnetic resonance and multiple sclerosis, and a nurse's sister a relative."""
        return title.strip() in ("MR", "MS", "mr", "ms", "sister", "miss", "doctor") and self._known(word)

    def _run(self, text: str, words: list[_Word], first: int, certain: bool, small: bool) -> int | None:
        """Where the name that begins with a word ends; None if it is none."""
        end = None
        names = 0
        number = first
        shouting = _shouting(text)
        while number < len(words) and names < 5:
            word = words[number]
            if number > first:
                gap = text[words[number - 1].end : word.start]
                joined = not gap.strip() or (gap.strip() == "," and (word.capital or small) and not self._known(word))
                if not joined or "\n\n" in gap:
                    break
            particle = word.text.lower().rstrip(".") in (*_PARTICLE, "st") and number + 1 < len(words)
            if particle and (word.text.islower() or names or self._named(words[number + 1], True, small)):
                number += 1
                continue
            if names and word.text.lower() in ("and", "&") and number + 1 < len(words):
                if not self._named(words[number + 1], False, small) or words[number + 1].initial:
                    break
                number += 1
                continue
            surname = names and word.bare in _SHORT and not NAMED_THINGS.match(text[word.end :].lstrip())
            if not self._named(word, bool(certain and not names) or bool(surname), small) or (
                shouting and names and self._known(word)
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

    def _named(self, word: _Word, certain: bool, small: bool) -> bool:
        if word.initial and word.text.endswith("."):
            return True
        if word.bare.lower() in FUNCTION or (word.bare in ACRONYMS and not certain):
            return False
        if not (word.capital or (small and len(word.bare) > 1)):
            return False
        return certain or word.initial or not self._known(word)

    def _credentials(self, text: str, words: list[_Word]) -> Iterator[tuple[int, int]]:
        """Names before a degree, up to three words back."""
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
                if word.bare in ACRONYMS:
                    break
                start = word.start
            if start is not None:
                yield start, match.end()

    def _capitals(self, text: str, words: list[_Word]) -> Iterator[tuple[int, int]]:
        """Capitalised words inside a sentence that are in no list; not where every word has a capital."""
        shouting, titled = _shouting(text), _titled(words)
        for number, word in enumerate(words):
            if not word.capital or word.initial or self._known(word) or _FORMULA.search(word.bare):
                continue
            before, after = text[: word.start], text[word.end :]
            if after[:1].isdigit():  # "SpO2"
                continue
            if word.shouted:
                # "SMITH, JOHN"
                comma = regex.match(r",\s+(\p{Lu}[\p{Lu}'’-]+)\b", after)
                if (
                    comma
                    and word.bare not in ACRONYMS - _SHORT
                    and comma[1] not in ACRONYMS
                    and not is_known(comma[1], self._keep)
                ):
                    yield word.start, word.end + comma.end()
                continue
            if shouting:
                continue
            if _called_after(text, word.start, word.end):
                continue
            possessive = regex.search(r"['’]s$", word.text) is not None
            first = _BOUNDARY.search(before) is not None and _ABBREVIATED.search(before) is None
            if first:
                together = number + 1 < len(words) and not after[: words[number + 1].start - word.end].strip()
                following = self._run(text, words, number + 1, False, False) if together else None
                if following is not None and _called_after(text, word.start, following):
                    continue
                if not (DOES.match(after) or possessive or (following is not None and not titled)):
                    continue
            elif titled and not possessive:
                continue
            start = word.start
            # "J. Smith", "van der Berg", "St. James"
            back = number - 1
            while back >= 0 and not text[words[back].end : words[back + 1].start].strip():
                previous = words[back]
                if not (previous.initial or previous.bare.lower() in (*_PARTICLE, "st")):
                    break
                if previous.initial and not previous.text.endswith("."):
                    break
                start, back = previous.start, back - 1
            bare = word.end - (2 if possessive else 0) - (1 if word.text.endswith(".") else 0)
            end = self._run(text, words, number, True, False)
            yield start, max(bare, end or 0) if not possessive else bare


def _placeholder(text: str, match: regex.Match[str]) -> bool:
    return text[max(0, match.start() - 1) : match.start()] == "[" and text[match.end() : match.end() + 1] == "]"


def _called_after(text: str, start: int, end: int) -> bool:
    """Whether a name is that of a sign, a device or a disease."""
    after = regex.sub(r"^['’]s(?=\s)", "", text[end:]).lstrip(" ")
    return NAMED_THINGS.match(after) is not None or THINGS_OF.search(text[:start]) is not None


def _shouting(text: str) -> bool:
    """Whether a text is written in capitals."""
    letters = [c for c in text if c.isalpha()]
    return sum(c.isupper() for c in letters) > 0.6 * len(letters)


def _titled(words: list[_Word]) -> bool:
    """Whether Nearly Every Word Has A Capital, as in a heading."""
    long = [word for word in words if len(word.bare) > 3 and not word.shouted]
    return len(long) >= 4 and sum(word.capital for word in long) > 0.6 * len(long)
