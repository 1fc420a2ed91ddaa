"""A caption as METEOR compares it: its words, what each of them may match, and the phrases it contains."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from stages.evaluate.metrics.meteor.stemmer import stem
from stages.evaluate.metrics.meteor.tables import MeteorTables

#: Bounds of what is remembered: words, and paraphrases over all remembered phrases.
_MAX_WORDS = 50_000
_MAX_PARAPHRASES = 300_000


@dataclass(frozen=True, slots=True)
class Word:
    """One word with its properties that METEOR compares."""

    #: The reference compares words and stems by their 32-bit hashes; two words of one hash are equal to it.
    key: int
    stem_key: int
    synsets: frozenset[int]
    is_function: bool
    #: In the vocabulary of the paraphrases, -1 outside.
    place: int


@dataclass(frozen=True)
class Text:
    """One text. Positions count words from 0."""

    words: tuple[Word, ...]
    #: Per position: nodes of the phrases of one word, two, ... that start there, as far as the tree goes.
    phrases: tuple[list[int], ...]

    def __len__(self) -> int:
        return len(self.words)

    @cached_property
    def keys(self) -> list[int]:
        return [word.key for word in self.words]

    @cached_property
    def function_words(self) -> list[bool]:
        return [word.is_function for word in self.words]

    @cached_property
    def by_key(self) -> dict[int, list[int]]:
        """Positions of each word."""
        return _positions(self.keys)

    @cached_property
    def by_stem(self) -> dict[int, list[int]]:
        """Positions of each stem."""
        return _positions([word.stem_key for word in self.words])

    @cached_property
    def with_synsets(self) -> list[tuple[int, int, frozenset[int]]]:
        """Position, key and synsets of each word that has synsets."""
        return [(i, word.key, word.synsets) for i, word in enumerate(self.words) if word.synsets]

    @cached_property
    def by_phrase(self) -> dict[int, list[tuple[int, int]]]:
        """Start and length of each occurrence of each phrase, by node."""
        found: dict[int, list[tuple[int, int]]] = {}
        for start, nodes in enumerate(self.phrases):
            for length, node in enumerate(nodes, start=1):
                found.setdefault(node, []).append((start, length))
        return found


class Lexicon:
    """Makes texts by the tables; words and phrases are looked up once and remembered, within bounded memory."""

    def __init__(self, tables: MeteorTables) -> None:
        self.tables = tables
        self._words: dict[str, Word] = {}
        self._paraphrases: dict[int, frozenset[int]] = {}
        self._held = 0

    def text(self, caption: str) -> Text:
        """A caption, normalized."""
        words = tuple(self._word(word) for word in self.tables.words_of(caption))
        places = [word.place for word in words]
        walk = self.tables.walk
        return Text(words, tuple(walk(places, i) if places[i] >= 0 else [] for i in range(len(places))))

    def paraphrases(self, node: int) -> frozenset[int]:
        """Nodes of the paraphrases of a phrase."""
        found = self._paraphrases.get(node)
        if found is None:
            found = frozenset(self.tables.paraphrases(node))
            self._held += len(found) + 1
            if self._held > _MAX_PARAPHRASES:
                self._paraphrases.clear()
                self._held = len(found) + 1
            self._paraphrases[node] = found
        return found

    def _word(self, word: str) -> Word:
        found = self._words.get(word)
        if found is None:
            if len(self._words) >= _MAX_WORDS:
                self._words.clear()
            found = self._words[word] = Word(
                key=java_hash(word),
                stem_key=java_hash(stem(word)),
                synsets=self.tables.synonyms.synsets(word),
                is_function=word in self.tables.function_words,
                place=self.tables.vocabulary_place(word),
            )
        return found


def java_hash(text: str) -> int:
    """String.hashCode of Java, unsigned: s[0]·31^(n-1) + ... + s[n-1] over UTF-16 units, in 32 bits."""
    found = 0
    if text.isascii():
        for unit in text.encode("ascii"):
            found = 31 * found + unit & 0xFFFFFFFF
        return found
    units = text.encode("utf-16-le", "surrogatepass")
    for low, high in zip(units[::2], units[1::2], strict=True):
        found = 31 * found + low + (high << 8) & 0xFFFFFFFF
    return found


def _positions(keys: list[int]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for i, key in enumerate(keys):
        found.setdefault(key, []).append(i)
    return found
