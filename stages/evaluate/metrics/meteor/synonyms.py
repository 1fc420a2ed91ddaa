"""Which WordNet synsets a word belongs to, by itself or by its base form."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from stages.evaluate.metrics.meteor.lexicon import Numbers

_NONE: frozenset[int] = frozenset()
#: Endings of inflected words and their replacements in the base form, in the order the reference tries them.
_INFLECTIONS = (
    *(("s", ""), ("ses", "s"), ("xes", "x"), ("zes", "z"), ("ches", "ch"), ("shes", "sh"), ("men", "man")),
    *(("ies", "y"), ("es", "e"), ("es", ""), ("ed", "e"), ("ed", ""), ("ing", "e"), ("ing", "")),
    *(("er", ""), ("est", ""), ("er", "e"), ("est", "e")),
)


class Synonyms:
    """The synonym dictionary; two words match if they share a synset."""

    def __init__(self, synsets: Numbers, irregular: Numbers) -> None:
        """`synsets`: of base forms. `irregular`: of inflected forms, the union over their base forms."""
        self._synsets = synsets
        self._irregular = irregular

    def synsets(self, word: str) -> frozenset[int]:
        """Synsets of a lower-case word and of its base form; empty where it has none."""
        own = self._synsets.get(word) or _NONE
        irregular = self._irregular.get(word)
        return own | (self._of_base(word) if irregular is None else irregular)

    def _of_base(self, word: str) -> frozenset[int]:
        if len(word) <= 2 or word.endswith("ss"):
            return _NONE
        for ending, instead in _INFLECTIONS:
            if word.endswith(ending):
                found = self._synsets.get(word[: -len(ending)] + instead)
                if found is not None:
                    return found
        return _NONE


def read_synsets(text: str) -> dict[str, frozenset[int]]:
    """The reference's list: a word on one line, its synsets on the next."""
    return {word: frozenset(map(int, numbers.split())) for word, numbers in _pairs(text)}


def read_irregular(text: str, synsets: dict[str, frozenset[int]]) -> dict[str, frozenset[int]]:
    """The reference's list of exceptions (a base form on one line, its inflected forms on the next), as synsets."""
    found: dict[str, set[int]] = {}
    for base, forms in _pairs(text):
        for form in forms.split():
            found.setdefault(form, set()).update(synsets.get(base, ()))
    return {form: frozenset(numbers) for form, numbers in found.items()}


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    lines: Iterable[str] = iter(text.splitlines())
    return zip(lines, lines, strict=True)
