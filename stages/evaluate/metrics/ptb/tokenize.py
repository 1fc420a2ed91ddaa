"""Penn Treebank tokenization of captions as the benchmarks do it: lower case, no punctuation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stages.evaluate.metrics.java import Unavailable
from stages.evaluate.metrics.ptb import by_rules, jar, plain
from stages.evaluate.metrics.ptb.rules import one_line

#: Captions beyond the fast path that are remembered at most.
REMEMBERED = 200_000


@dataclass
class Counts:
    """The number of captions by the way they took; one that was remembered counts for its first way."""

    plain: int = 0
    """The fast path."""
    jar: int = 0
    """The reference's jar."""
    rules: int = 0
    """Pairmill's rules."""

    @property
    def all(self) -> int:
        """Captions tokenized."""
        return self.plain + self.jar + self.rules


class PtbTokenizer:
    """Tokens of captions, each of them depending on that caption alone, and how many took which way.

    The fast path (`plain.py`) where it is certain, the reference's jar for the rest, and where that cannot be run, the
    rules (`by_rules.py`), from then on for every caption beyond the fast path.
    """

    def __init__(self, java: bool = True, remember: int = REMEMBERED) -> None:
        """`java=False` never starts Java; `remember` captions beyond the fast path are remembered."""
        self.counts = Counts()
        self._remember = remember
        self._known: dict[str, str] = {}
        self._no_jar = "" if java else "Java is not to be used"

    def tokenize(self, captions: Sequence[str]) -> list[str]:
        """Each caption's tokens joined by single spaces; ``""`` for a caption of nothing but punctuation.

        Tokens are those of pycocoevalcap 1.2 for the caption followed by `rules.NEUTRAL`; a line separator inside a
        caption is a space. A token may hold a no-break space (`1 1/2`). Java is started at most once. Raises nothing:
        why the jar was not used stands in `describe`.
        """
        found = plain.tokens_of(captions)
        rest = {place: one_line(captions[place]) for place, tokens in enumerate(found) if tokens is None}
        for place, again in zip(rest, plain.tokens_of(list(rest.values())), strict=True):
            found[place] = again
        uncertain = {place: line for place, line in rest.items() if found[place] is None}
        known = self._tokens_of(dict.fromkeys(uncertain.values()))
        for place, line in uncertain.items():
            found[place] = known[line]
        self.counts.plain += len(captions) - len(uncertain)
        if self._no_jar:
            self.counts.rules += len(uncertain)
        else:
            self.counts.jar += len(uncertain)
        return [tokens if tokens is not None else "" for tokens in found]

    def _tokens_of(self, lines: dict[str, None]) -> dict[str, str]:
        known = {line: self._known[line] for line in lines if line in self._known}
        new = [line for line in lines if line not in known]
        if new and not self._no_jar:
            try:
                known.update(zip(new, jar.tokens_of(new), strict=True))
            except Unavailable as error:
                # From here on by the rules, all of them: the tokens must not depend on which captions came before.
                self._no_jar = str(error)
                self._known.clear()
                known.clear()
                new = list(lines)
        if self._no_jar:
            known.update({line: by_rules.tokens_of(line) for line in new})
        for line in new:
            if len(self._known) >= self._remember:
                break
            self._known[line] = known[line]
        return known

    def describe(self) -> str:
        """For a result's protocol: how many captions took which way, and why the jar was not used."""
        counts = self.counts
        text = "PTB, lower case, punctuation dropped, as pycocoevalcap 1.2 reads each caption alone"
        if not counts.all:
            return text
        text += f": {counts.plain} of {counts.all} captions ({counts.plain / counts.all:.1%}) by the fast path"
        if counts.jar:
            text += f", {counts.jar} by the CoreNLP 3.4.1 jar"
        if counts.rules:
            text += f", {counts.rules} by Pairmill's rules ({self._no_jar})"
        return text


def tokenize(captions: Sequence[str]) -> list[str]:
    """The tokens of captions by a tokenizer of this process that remembers; see `PtbTokenizer.tokenize`."""
    return _shared.tokenize(captions)


_shared = PtbTokenizer()
