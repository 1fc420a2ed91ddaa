"""The reference itself: Stanford CoreNLP 3.4.1 with the options and the list of punctuation of pycocoevalcap 1.2."""

from __future__ import annotations

from collections.abc import Sequence

from stages.evaluate.metrics.java import Process, Unavailable, reference_file
from stages.evaluate.metrics.ptb.rules import NEUTRAL

_ARGUMENTS = ("edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase")
_NEUTRAL_TOKENS = "a '' ' < a"
#: Dropped behind the lexer, as pycocoevalcap does; its brackets `-LRB-` ... are not among them once in lower case.
_DROPPED = frozenset(["''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"])


def tokens_of(lines: Sequence[str]) -> list[str]:
    """The tokens of each line joined by spaces, each line read on its own, by one start of Java (half a second).

    A line holds no line separator (`rules.one_line`). Raises Unavailable when there is no Java or no jar, and when the
    jar fails or its output does not have one line per line.
    """
    if not lines:
        return []
    jar = reference_file("tokenizer", "stanford-corenlp-3.4.1.jar")
    text = "".join(f"{line}\n{NEUTRAL}\n" for line in lines)
    try:
        with Process(["-cp", jar.name, *_ARGUMENTS], cwd=jar.parent) as process:
            written = process.communicate(text.encode("utf-8")).decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise Unavailable(f"{jar.name} could not be run: {error}") from None
    if len(written) != 2 * len(lines) + 1 or any(line.rstrip() != _NEUTRAL_TOKENS for line in written[1::2]):
        raise Unavailable(f"{jar.name} did not return one line for each of {len(lines)} captions")
    return [_without_punctuation(line) for line in written[:-1:2]]


def _without_punctuation(line: str) -> str:
    return " ".join(word for word in line.rstrip().split(" ") if word not in _DROPPED)
