"""METEOR's sufficient statistics and the score they give (Denkowski and Lavie 2014, section 2, English parameters)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stages.evaluate.metrics.meteor.matchers import Match, Module
from stages.evaluate.metrics.meteor.text import Text

#: The English parameters of METEOR 1.5's default task, ranking.
ALPHA, BETA, GAMMA, DELTA = 0.85, 0.2, 0.6, 0.75
#: Weights of exact, stem, synonym and paraphrase matches in the same task.
WEIGHTS = (1.0, 0.6, 0.8, 0.6)

#: Columns of a row of statistics, those of the reference's SCORE line in its order.
COLUMNS = (
    "candidate_length",
    "reference_length",
    "candidate_function_words",
    "reference_function_words",
    *(
        f"{side}_{kind}_{module.name.lower()}"
        for module in Module
        for kind in ("content", "function")
        for side in ("candidate", "reference")
    ),
    "chunks",
    "candidate_matches",
    "reference_matches",
)
_CHUNKS = COLUMNS.index("chunks")


@dataclass(frozen=True, slots=True)
class MeteorStatistics:
    """Counts of one candidate against its best reference, all of them words but for `chunks`."""

    candidate_length: int
    reference_length: int
    candidate_function_words: int
    reference_function_words: int
    #: [matcher][content words of the candidate, of the reference, function words of the candidate, of the reference]
    matched: tuple[tuple[int, int, int, int], ...]
    chunks: int

    @property
    def perfect(self) -> bool:
        """Whether all words of both sides match in one chunk."""
        return (
            self.chunks == 1
            and self.candidate_matches == self.candidate_length
            and self.reference_matches == self.reference_length
        )

    @property
    def candidate_matches(self) -> int:
        return sum(counts[0] + counts[2] for counts in self.matched)

    @property
    def reference_matches(self) -> int:
        return sum(counts[1] + counts[3] for counts in self.matched)

    def row(self) -> np.ndarray:
        """int64 [columns] for `score_of_sums`: the SCORE line, except that a perfect match adds no chunk to a sum."""
        counts = self._counts()
        counts[_CHUNKS] = 0 if self.perfect else self.chunks
        return np.array(counts, np.int64)

    def line(self) -> str:
        """The reference's SCORE line."""
        return " ".join(f"{float(count)}" for count in self._counts())

    def _counts(self) -> list[int]:
        return [
            self.candidate_length,
            self.reference_length,
            self.candidate_function_words,
            self.reference_function_words,
            *(count for counts in self.matched for count in counts),
            self.chunks,
            self.candidate_matches,
            self.reference_matches,
        ]


def read_line(line: str) -> MeteorStatistics:
    """Statistics from the reference's SCORE line. Raises ValueError for any other text."""
    numbers = [int(float(number)) for number in line.split()]
    if len(numbers) != len(COLUMNS):
        raise ValueError(f"{len(numbers)} numbers where {len(COLUMNS)} belong")
    matched = tuple((a, b, c, d) for a, b, c, d in zip(*(numbers[at:_CHUNKS:4] for at in range(4, 8)), strict=True))
    length, other_length, function_words, other_function_words = numbers[:4]
    return MeteorStatistics(length, other_length, function_words, other_function_words, matched, numbers[_CHUNKS])


def count(candidate: Text, reference: Text, alignment: Sequence[Match]) -> MeteorStatistics:
    """Statistics of an alignment, which is sorted by position in the reference."""
    matched = [[0, 0, 0, 0] for _ in Module]
    function, other_function = reference.function_words, candidate.function_words
    chunks, end, other_end = 0, -1, -1
    for start, length, other_start, other_length, module in alignment:
        counts = matched[module]
        for j in range(other_start, other_start + other_length):
            counts[2 if other_function[j] else 0] += 1
        for i in range(start, start + length):
            counts[3 if function[i] else 1] += 1
        chunks += start != end or other_start != other_end
        end, other_end = start + length, other_start + other_length
    return MeteorStatistics(
        len(candidate),
        len(reference),
        sum(other_function),
        sum(function),
        tuple((a, b, c, d) for a, b, c, d in matched),
        chunks,
    )


def score(statistics: MeteorStatistics) -> float:
    """METEOR of one candidate, in [0, 1]; 0 where nothing matches. The reference's operations in its order."""
    if not statistics.candidate_matches or not statistics.reference_matches:
        return 0.0
    matched = statistics.matched
    precision = _weighted([c[0] for c in matched], [c[2] for c in matched]) / _length(
        statistics.candidate_length, statistics.candidate_function_words
    )
    recall = _weighted([c[1] for c in matched], [c[3] for c in matched]) / _length(
        statistics.reference_length, statistics.reference_function_words
    )
    mean = 1.0 / ((1.0 - ALPHA) / precision + ALPHA / recall)
    pairs = (statistics.candidate_matches + statistics.reference_matches) / 2.0
    fragmentation = 0.0 if statistics.perfect else statistics.chunks / pairs
    return max(mean * (1.0 - GAMMA * math.pow(fragmentation, BETA)), 0.0)


def aggregate(statistics: Sequence[MeteorStatistics]) -> float:
    """The corpus score, from summed statistics: the last line of the reference's EVAL. 0 where there are none."""
    sums = np.zeros(len(COLUMNS), np.int64)
    for one in statistics:
        sums += one.row()
    return float(score_of_sums(sums))


def score_of_sums(sums: np.ndarray) -> np.ndarray:
    """METEOR of summed rows of statistics.

    `sums`: [..., columns], one row for an image's own score, sums over images for a corpus or a bootstrap sample (any
    weights will do). Returns float64 [...] in [0, 1]; 0 where nothing matches.
    """
    columns = np.moveaxis(np.asarray(sums, np.float64), -1, 0)
    counts = columns[4:_CHUNKS].reshape(len(Module), 4, *columns.shape[1:])
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = _weighted(counts[:, 0], counts[:, 2]) / _length(columns[0], columns[2])
        recall = _weighted(counts[:, 1], counts[:, 3]) / _length(columns[1], columns[3])
        mean = 1.0 / ((1.0 - ALPHA) / precision + ALPHA / recall)
        fragmentation = columns[_CHUNKS] / ((columns[_CHUNKS + 1] + columns[_CHUNKS + 2]) / 2.0)
        scores = mean * (1.0 - GAMMA * np.power(fragmentation, BETA))
    return np.where(np.isnan(scores), 0.0, np.maximum(scores, 0.0))


def _length(words, function_words):  # type: ignore[no-untyped-def]  # floats or arrays of them
    return DELTA * (words - function_words) + (1.0 - DELTA) * function_words


def _weighted(content, function):  # type: ignore[no-untyped-def]  # a number, or an array, per matcher
    total = 0.0
    for count, weight in zip(content, WEIGHTS, strict=True):
        total = total + count * weight * DELTA
    for count, weight in zip(function, WEIGHTS, strict=True):
        total = total + count * weight * (1.0 - DELTA)
    return total
