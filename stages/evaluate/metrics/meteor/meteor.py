"""METEOR 1.5 for English, as pycocoevalcap 1.2 runs it, without Java (Denkowski and Lavie 2014)."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stages.evaluate.metrics.meteor import container
from stages.evaluate.metrics.meteor.aligner import align
from stages.evaluate.metrics.meteor.matchers import find_matches
from stages.evaluate.metrics.meteor.normalize import one_candidate, one_reference
from stages.evaluate.metrics.meteor.statistics import COLUMNS, MeteorStatistics, count, score, score_of_sums
from stages.evaluate.metrics.meteor.tables import MeteorTables, open_tables, tables_file
from stages.evaluate.metrics.meteor.text import Lexicon

#: Images per task of a worker, and the fewest per worker for which its start (0.3 s) pays off.
_CHUNK = 250
_WORTH_A_WORKER = 1000

_Images = list[tuple[str, list[str]]]


class Meteor:
    """The metric with its tables open. Not thread-safe."""

    def __init__(self, tables: MeteorTables | None = None) -> None:
        """`tables`: by default pycocoevalcap's, built if needed. Raises Unavailable where that is missing."""
        self._lexicon = Lexicon(tables or open_tables())

    def statistics(self, candidate: str, references: Sequence[str]) -> MeteorStatistics:
        """Statistics against the reference that scores best, the first of equals.

        Texts are PTB-tokenized captions in lower case. Each is one text: `|||` is removed (pycocoevalcap removes it
        from candidates, and would split a reference by it), and a line break is a space. No reference at all counts
        as one empty reference, as it does there.
        """
        text = self._lexicon.text(one_candidate(candidate))
        best, best_score = None, -1.0
        for reference in references or [""]:
            other = self._lexicon.text(one_reference(reference))
            found = count(text, other, align(find_matches(text, other, self._lexicon), len(text)))
            if (its_score := score(found)) > best_score:
                best, best_score = found, its_score
        assert best is not None
        return best


@dataclass(frozen=True)
class MeteorScores:
    """METEOR of a set of captions."""

    #: int64 [images, columns]: their sum over images gives the corpus score by `score_of_sums`.
    statistics: np.ndarray
    #: float64 [images] in [0, 1].
    per_image: np.ndarray

    @property
    def corpus(self) -> float:
        """The corpus score, in [0, 1]: that of the summed statistics, not the mean. 0 for no images."""
        return float(score_of_sums(self.statistics.sum(axis=0)))


def meteor(candidates: Sequence[str], references: Sequence[Sequence[str]], workers: int = 1) -> MeteorScores:
    """METEOR of one candidate per image against its references; see `Meteor.statistics` for the texts.

    `workers` processes share the images where there are enough of them; the scores do not depend on their number.
    Raises Unavailable where pycocoevalcap is missing, ValueError where the two lists differ in length.
    """
    images = [(candidate, list(texts)) for candidate, texts in zip(candidates, references, strict=True)]
    workers = min(workers, len(images) // _WORTH_A_WORKER)
    rows = _in_parallel(images, workers) if workers > 1 else _rows(Meteor(), images)
    statistics = np.array(rows, np.int64).reshape(len(images), len(COLUMNS))
    return MeteorScores(statistics, score_of_sums(statistics))


def _rows(metric: Meteor, images: _Images) -> list[np.ndarray]:
    return [metric.statistics(candidate, texts).row() for candidate, texts in images]


def _in_parallel(images: _Images, workers: int) -> list[np.ndarray]:
    # Built here, so that the workers do not each build it.
    path = tables_file()
    context = multiprocessing.get_context("spawn")
    chunks = [images[at : at + _CHUNK] for at in range(0, len(images), _CHUNK)]
    with ProcessPoolExecutor(workers, context, initializer=_open, initargs=(path,)) as pool:
        return [row for rows in pool.map(_rows_of_worker, chunks) for row in rows]


_worker: list[Meteor] = []


def _open(path: Path) -> None:
    _worker[:] = [Meteor(MeteorTables(*container.read(path)))]


def _rows_of_worker(images: _Images) -> list[np.ndarray]:
    return _rows(_worker[0], images)
