"""Counts words, split exactly as Hugging Face's byte-level pre-tokenizer splits them.

Texts are counted by their pieces (`stages/tokenizer/pieces.py`): each distinct piece is split once, however often it
occurs. The counts are those that `Tokenizer.train_from_iterator` computes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from tokenizers import pre_tokenizers

from stages.tokenizer.pieces import split, texts_array

SCHEMA = pa.schema([("word", pa.large_string()), ("count", pa.int64())])
"""Words in the byte-level alphabet (no spaces in it: a leading one is written ``Ġ``) and their occurrences."""

_ROWS_AT_ONCE = 1_000_000


def byte_level() -> pre_tokenizers.ByteLevel:
    """The pre-tokenizer of every tokenizer trained here. It adds no space, so decoding returns what was encoded."""
    return pre_tokenizers.ByteLevel(add_prefix_space=False)


class WordCounter:
    """Counts the words of batches of texts; memory grows with the distinct words and pieces only."""

    def __init__(self) -> None:
        self._words: Counter[str] = Counter()
        self._pieces: Counter[str] = Counter()
        self._cut = byte_level().pre_tokenize_str

    def add(self, texts: pa.Array) -> None:
        """Count a batch of strings."""
        pieces = split(texts)
        for text in pieces.whole.to_pylist():
            self._words.update(word for word, _ in self._cut(text))
        for row in pc.value_counts(pieces.usual).to_pylist():
            self._pieces[row["values"]] += row["counts"]

    def table(self) -> pa.Table:
        """Words and counts, sorted by word."""
        words = self._words.copy()
        for piece, count in self._pieces.items():
            for word, _ in self._cut(piece):
                words[word] += count
        ordered = sorted(words)
        return pa.table([ordered, [words[word] for word in ordered]], schema=SCHEMA)


def count_words(batches: Iterable[list[str]]) -> pa.Table:
    """Words and counts (`SCHEMA`), sorted by word, of all texts."""
    counter = WordCounter()
    for texts in batches:
        counter.add(texts_array(texts))
    return counter.table()


def write_counts(table: pa.Table, file: Path) -> None:
    """Write a partition's counts, to be added up by :func:`sum_counts`."""
    pq.write_table(table, file, compression="zstd")


def sum_counts(files: Iterable[Path]) -> pa.Table:
    """The sum of the partitions' counts, sorted by word. Memory is bounded by the distinct words and one partition."""
    summed: pa.Table = SCHEMA.empty_table()
    waiting: list[pa.Table] = []
    for file in sorted(files):
        waiting.append(pq.read_table(file, schema=SCHEMA))
        # Adding costs as much as the sum is long, so it waits until as many rows again have accumulated.
        if sum(map(len, waiting)) > max(len(summed), _ROWS_AT_ONCE):
            summed, waiting = _add([summed, *waiting]), []
    return _add([summed, *waiting]).sort_by("word")


def _add(tables: list[pa.Table]) -> pa.Table:
    added = pa.concat_tables(tables).group_by("word", use_threads=False).aggregate([("count", "sum")])
    return added.rename_columns({"count_sum": "count"}).select(["word", "count"])


def iter_counts(table: pa.Table) -> Iterator[tuple[str, int]]:
    """(word, count) of each row; only a batch of rows at a time is converted to Python objects."""
    for batch in table.to_batches(max_chunksize=10_000):
        yield from zip(batch["word"].to_pylist(), batch["count"].to_pylist(), strict=True)
