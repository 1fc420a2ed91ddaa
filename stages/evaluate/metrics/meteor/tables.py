"""The tables of METEOR: built once from pycocoevalcap's data, then memory-mapped in milliseconds."""

from __future__ import annotations

import os
import sys
import tempfile
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stages.evaluate.metrics.java import Unavailable
from stages.evaluate.metrics.meteor import container
from stages.evaluate.metrics.meteor.lexicon import open_numbers, open_words, pack_numbers, pack_words
from stages.evaluate.metrics.meteor.normalize import normalizer, read_prefixes
from stages.evaluate.metrics.meteor.sources import Sources, find_sources
from stages.evaluate.metrics.meteor.synonyms import Synonyms, read_irregular, read_synsets


class MeteorTables:
    """METEOR's language data for English. Opening maps a file, of which only what is looked up is read."""

    def __init__(self, header: Mapping[str, Any], arrays: Mapping[str, memoryview]) -> None:
        self.function_words: frozenset[str] = frozenset(header["function_words"])
        self.words_of = normalizer(header["prefixes"])
        self.synonyms = Synonyms(open_numbers(arrays, "synsets"), open_numbers(arrays, "irregular"))
        self._vocabulary = open_words(arrays, "vocabulary")
        self._first_child = arrays["first_child"]
        self._word = arrays["word"]
        self._first_paraphrase = arrays["first_paraphrase"]
        self._paraphrase = arrays["paraphrase"]

    def vocabulary_place(self, word: str) -> int:
        """Number of a word in the paraphrases' vocabulary, -1 where it is missing."""
        return self._vocabulary.find(word)

    def walk(self, words: Sequence[int], start: int) -> list[int]:
        """Nodes of the phrases that start at words[start]: of one word, of two, as far as the tree goes.

        `words` are numbers as `vocabulary_place` gives them.
        """
        nodes = []
        node = -1
        for i in range(start, len(words)):
            low, high = self._first_child[node + 1], self._first_child[node + 2]
            node = bisect_left(self._word, words[i], low, high)
            if words[i] < 0 or node == high or self._word[node] != words[i]:
                break
            nodes.append(node)
        return nodes

    def paraphrases(self, node: int) -> list[int]:
        """Nodes of the paraphrases of the phrase that ends at a node, in the list's order."""
        return self._paraphrase[self._first_paraphrase[node] : self._first_paraphrase[node + 1]].tolist()


def open_tables(folder: Path | None = None) -> MeteorTables:
    """The tables of the installed pycocoevalcap, built into `folder` (default: see `cache_folder`) if needed.

    Building takes some seconds and prints a line on standard error; processes may build at the same time.
    Raises Unavailable where pycocoevalcap's data is missing.
    """
    return MeteorTables(*container.read(tables_file(folder)))


def tables_file(folder: Path | None = None) -> Path:
    """Path of the tables, which are built first where they are missing or damaged. Raises Unavailable."""
    sources = find_sources()
    path = (folder or cache_folder()) / f"{sources.digest}.tables"
    try:
        container.read(path)
    except (FileNotFoundError, ValueError):
        _build(sources, path)
    return path


def _build(sources: Sources, path: Path) -> None:
    sys.stderr.write("building METEOR's tables once ... ")
    sys.stderr.flush()
    container.write(path, *_tables_of(sources))
    sys.stderr.write(f"{path.stat().st_size / 1e6:.0f} MB in {path}\n")


def _tables_of(sources: Sources) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Header and arrays of the tables, from the reference's data. Raises Unavailable where the data is damaged."""
    from stages.evaluate.metrics.meteor.trie import build_trie  # only building needs pyarrow

    try:
        vocabulary, tree = build_trie(sources.paraphrase_bytes())
    except ValueError as error:
        raise Unavailable(f"{sources.paraphrases}: {error}; reinstall pycocoevalcap==1.2") from None
    synsets = read_synsets(sources.text("synonym/english.synsets"))
    irregular = read_irregular(sources.text("synonym/english.exceptions"), synsets)
    header = {
        "function_words": sources.text("function/english.words").splitlines(),
        "prefixes": read_prefixes(sources.text("nonbreaking/english.prefixes")),
    }
    return header, {
        **tree,
        **pack_words(vocabulary, "vocabulary"),
        **pack_numbers(synsets, "synsets"),
        **pack_numbers(irregular, "irregular"),
    }


def cache_folder() -> Path:
    """`meteor` in $PAIRMILL_CACHE, else in pairmill of $XDG_CACHE_HOME, else in ~/.cache/pairmill; created if need be.

    Where that cannot be written: a folder of this user's in the system's temporary folder.
    """
    named = os.environ.get("PAIRMILL_CACHE")
    shared = os.environ.get("XDG_CACHE_HOME")
    root = Path(named) if named else (Path(shared) if shared else Path.home() / ".cache") / "pairmill"
    found = _writable(root / "meteor")
    if found is None:
        user = os.getuid() if hasattr(os, "getuid") else "user"
        found = _writable(Path(tempfile.gettempdir(), f"pairmill-{user}", "meteor"), private=True)
    return found or Path(tempfile.mkdtemp(prefix="pairmill-meteor-"))


def _writable(folder: Path, private: bool = False) -> Path | None:
    try:
        if private:
            folder.parent.mkdir(mode=0o700, exist_ok=True)
            # Anyone may create a folder of this name there; one that another user owns must not be read.
            if folder.parent.is_symlink() or folder.parent.stat().st_uid != os.getuid():
                return None
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK | os.X_OK) else None
