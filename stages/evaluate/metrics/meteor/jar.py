"""METEOR by its reference: the jar in pycocoevalcap 1.2, one Java process for a whole run."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from stages.evaluate.metrics.java import Process, Unavailable, reference_file, staged
from stages.evaluate.metrics.meteor.normalize import one_candidate, one_reference
from stages.evaluate.metrics.meteor.sources import JAR, PARAPHRASES
from stages.evaluate.metrics.meteor.statistics import MeteorStatistics, read_line

_OPTIONS = ("-Xmx2G",)
_ARGUMENTS = ("-", "-", "-stdio", "-l", "en", "-norm")
#: The jar uses the URL of its own location as a path, so it finds its data only where both are spelled the same.
_SAME_AS_URL = re.compile(r"[A-Za-z0-9_./-]+")


class MeteorJar:
    """A running process of the reference. A context manager: leaving it ends the process.

    Starting takes as long as Java needs to read the paraphrases (6 to 60 s), and more than 1 GB of memory.
    """

    def __init__(self) -> None:
        """Raises Unavailable where Java or pycocoevalcap's files are missing."""
        jar, paraphrases = reference_file(*JAR), reference_file(*PARAPHRASES)
        with ExitStack() as stack:
            if not _SAME_AS_URL.fullmatch(str(jar.resolve())):
                scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="pairmill-", dir=_plain_folder()))
                jar = staged({jar.name: jar, "data/paraphrase-en.gz": paraphrases}, Path(scratch)) / jar.name
            arguments = ["-jar", str(jar.resolve()), *_ARGUMENTS]
            self._process = stack.enter_context(Process(arguments, cwd=jar.parent, options=_OPTIONS))
            self._stack = stack.pop_all()

    def __enter__(self) -> MeteorJar:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        self._stack.close()

    def statistics(self, candidate: str, references: Sequence[str]) -> MeteorStatistics:
        """As `Meteor.statistics`. Raises Unavailable where the process died or does not answer with numbers."""
        texts = [*(one_reference(text) for text in references or [""]), one_candidate(candidate)]
        (line,) = self._process.request(" ||| ".join(("SCORE", *texts)))
        return _parsed(line)

    def scores(self, statistics: Sequence[MeteorStatistics]) -> tuple[list[float], float]:
        """The score of each image and of the corpus, as the jar computes them. Raises Unavailable."""
        if not statistics:
            return [], 0.0
        line = " ||| ".join(("EVAL", *(one.line() for one in statistics)))
        *each, corpus = self._process.request(line, answers=len(statistics) + 1)
        return [float(text) for text in each], float(corpus)


def _parsed(line: str) -> MeteorStatistics:
    try:
        return read_line(line)
    except ValueError:
        raise Unavailable(f"METEOR's jar answered {line[:80]!r} instead of statistics") from None


def _plain_folder() -> str | None:
    return None if _SAME_AS_URL.fullmatch(tempfile.gettempdir()) else "/tmp"
