"""Which captions repeat a benchmark's texts: word n-grams that both have."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import pyarrow as pa

from stages.index.schema import BENCHMARK_TEXTS

_APOSTROPHE = re.compile(r"['’]")
_PUNCTUATION = re.compile(r"[^\w\s]|_")


@dataclass(frozen=True)
class Phrases:
    """All n-grams of the benchmarks' texts."""

    n: int
    benchmarks: tuple[str, ...] = ()
    """Names, sorted."""
    benchmarks_of: Mapping[str, tuple[int, ...]] | None = None
    """n-gram -> positions in `benchmarks`."""

    @staticmethod
    def of(n: int, texts: Mapping[str, Iterable[str]]) -> Phrases:
        """From the texts of each benchmark."""
        names = tuple(sorted(texts))
        benchmarks_of: dict[str, tuple[int, ...]] = {}
        for number, name in enumerate(names):
            for text in texts[name]:
                for gram in ngrams(text, n):
                    where = benchmarks_of.get(gram, ())
                    if not where or where[-1] != number:
                        benchmarks_of[gram] = (*where, number)
        return Phrases(n, names, benchmarks_of)


def words(text: str) -> list[str]:
    """Words as they are compared: case folded, apostrophes left out, other punctuation taken for white space."""
    return _PUNCTUATION.sub(" ", _APOSTROPHE.sub("", text.casefold())).split()


def ngrams(text: str, n: int) -> Iterator[str]:
    """Each run of n words, joined by single spaces; none of a text that is shorter."""
    sequence = words(text)
    for start in range(len(sequence) - n + 1):
        yield " ".join(sequence[start : start + n])


def overlaps(captions: pa.ChunkedArray, phrases: Phrases) -> pa.Table:
    """Rows `pair` (position of the caption), `benchmark`, `overlap`: of the captions that share any n-gram.

    Overlap is the share of the caption's n-grams, repeats counted, that the benchmark has.
    """
    pairs: list[int] = []
    numbers: list[int] = []
    shares: list[float] = []
    known = phrases.benchmarks_of
    if known:
        every = (caption for chunk in captions.chunks for caption in chunk.to_pylist())
        for row, caption in enumerate(every):
            # A word needs a letter and a space: most captions are too short to be looked at.
            if len(caption) < 2 * phrases.n - 1:
                continue
            grams = list(ngrams(caption, phrases.n))
            hits = [number for gram in grams for number in known.get(gram, ())]
            for number in sorted(set(hits)):
                pairs.append(row)
                numbers.append(number)
                shares.append(hits.count(number) / len(grams))
    return pa.table(
        {
            "pair": pa.array(pairs, pa.int32()),
            "benchmark": pa.DictionaryArray.from_arrays(
                pa.array(numbers, pa.int16()), pa.array(phrases.benchmarks, pa.string())
            ),
            "overlap": pa.array(shares, pa.float32()),
        },
        schema=BENCHMARK_TEXTS,
    )
