"""Measures a tokenizer on texts: fertility, characters per token, round trips, and vocabulary use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tokenizers import pre_tokenizers

from stages.tokenizer.counting import iter_counts
from stages.tokenizer.load import LoadedTokenizer
from stages.tokenizer.pieces import texts_array
from stages.tokenizer.scripts import ScriptDetector

_COLUMNS = ("texts", "words", "characters", "bytes", "tokens", "round_trip_failed", "unknown")
_WORDS_AT_ONCE = 20_000


@dataclass(frozen=True)
class TextBatch:
    """A batch of texts, with what does not depend on the tokenizer."""

    texts: list[str]
    array: pa.Array
    """The texts as an Arrow string array."""
    scripts: np.ndarray  # [texts], numbers into ScriptDetector.names
    sizes: np.ndarray  # [3, texts]: white-space separated words, characters, UTF-8 bytes

    @classmethod
    def of(cls, texts: list[str], scripts: ScriptDetector) -> TextBatch:
        """Measure the script and size of each text."""
        array = texts_array(texts)
        words = np.fromiter((len(text.split()) for text in texts), np.int64, count=len(texts))
        sizes = [words, pc.utf8_length(array).to_numpy(), pc.binary_length(array).to_numpy()]
        return cls(texts, array, scripts.detect(texts), np.array(sizes, np.int64))


@dataclass
class CorpusStatistics:
    """Sums over the texts of one corpus by script, for one tokenizer."""

    used: np.ndarray  # [vocabulary] bool, shared by all corpora of the tokenizer
    sums: np.ndarray = field(default_factory=lambda: np.zeros((len(_COLUMNS), len(ScriptDetector.names)), np.int64))
    one_token: dict[str, float] = field(default_factory=dict)

    def add(self, batch: TextBatch, encoded: tuple[np.ndarray, np.ndarray], tokenizer: LoadedTokenizer) -> None:
        """Add a batch with its ids (concatenated, and offsets), which are decoded again for the round trip."""
        flat, offsets = encoded
        self.used[flat] = True
        ids = flat.tolist()
        ends = offsets.tolist()
        decoded = tokenizer.decode_batch([ids[start:stop] for start, stop in pairwise(ends)])
        failed = np.array([a != b for a, b in zip(batch.texts, decoded, strict=True)], np.int64)
        unknown = np.zeros(len(batch.texts), np.int64)
        if tokenizer.unknown_id is not None:
            np.add.at(unknown, np.searchsorted(offsets, np.flatnonzero(flat == tokenizer.unknown_id), "right") - 1, 1)
        columns = [np.ones_like(failed), *batch.sizes, np.diff(offsets), failed, unknown]
        for row, values in zip(self.sums, columns, strict=True):
            np.add.at(row, batch.scripts, values)

    def add_words(self, words: pa.Table, tokenizer: LoadedTokenizer) -> None:
        """Compute the share of a corpus's words (`counting.SCHEMA`) that are one token, by occurrence and distinct."""
        seen = np.zeros((2, 2), np.int64)  # [occurrences, distinct] x [all, one token]
        for start in range(0, len(words), _WORDS_AT_ONCE):
            some = list(iter_counts(words.slice(start, _WORDS_AT_ONCE)))
            counts = np.array([count for _, count in some], np.int64)
            ids = tokenizer.encode_batch([_text(word) for word, _ in some])
            one = np.fromiter((len(i) == 1 for i in ids), bool, count=len(ids))
            seen += [[counts.sum(), counts[one].sum()], [len(counts), one.sum()]]
        (occurrences, whole), (distinct, distinct_whole) = seen.tolist()
        self.one_token = {
            "one_token_words": whole / occurrences if occurrences else 0.0,
            "distinct_words": distinct,
            "one_token_distinct_words": distinct_whole / distinct if distinct else 0.0,
        }

    def figures(self) -> dict[str, Any]:
        """Figures of the corpus and, under `scripts`, of its texts in each script, most frequent script first."""
        numbers = np.argsort(-self.sums[0], kind="stable")
        scripts = {ScriptDetector.names[n]: _figures(self.sums[:, n]) for n in numbers if self.sums[0, n]}
        return {**_figures(self.sums.sum(axis=1)), **self.one_token, "scripts": scripts}


def _figures(sums: Sequence[int] | np.ndarray) -> dict[str, Any]:
    named = {name: int(value) for name, value in zip(_COLUMNS, sums, strict=True)}
    words, tokens = named["words"], named["tokens"]
    return {
        **named,
        "fertility": tokens / words if words else 0.0,
        "characters_per_token": named["characters"] / tokens if tokens else 0.0,
        "bytes_per_token": named["bytes"] / tokens if tokens else 0.0,
    }


def _byte_letters() -> dict[int, int]:
    """Byte-level letter -> byte, as in GPT-2's encoder: visible bytes map to themselves, others from U+0100 on."""
    visible = {ord(letter) for letter in pre_tokenizers.ByteLevel.alphabet() if ord(letter) < 0x100}
    hidden = [byte for byte in range(256) if byte not in visible]
    return {byte: byte for byte in visible} | {0x100 + number: byte for number, byte in enumerate(hidden)}


_BYTES = _byte_letters()


def _text(word: str) -> str:
    return bytes(_BYTES[ord(letter)] for letter in word).decode("utf-8")
