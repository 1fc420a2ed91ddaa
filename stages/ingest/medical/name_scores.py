"""How much a word's spelling looks like a person's name: lexicons of names and of words, and a model for all others.

`words/name_scores.npz` holds a logistic regression over hashed character n-grams and the words for which it errs.
`build_name_scores.py` makes it.
"""

from __future__ import annotations

import unicodedata
import zlib
from collections.abc import Iterator
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FILE = Path(__file__).with_name("words") / "name_scores.npz"
#: Least log-odds of a name that nothing announces, unless configured; docs/medical.md has the curve.
NAME_THRESHOLD = 1.0
#: Labels of people in spaCy's pipelines, CoNLL models and the data sets of de-identification (i2b2 2014), any case.
PERSON_LABELS = ("PERSON", "PER", "NAME", "PATIENT", "DOCTOR", "STAFF", "HCW")
#: Hashes of n-grams, as bits.
BITS = 16
_LENGTHS = (2, 3, 4, 5)
#: Below this number of letters spelling tells nothing: only the lexicon counts.
_SHORT = 4
UNKNOWN = -9.0
_LETTERS = str.maketrans({"ł": "l", "ı": "i", "ø": "o", "ß": "ss", "æ": "ae", "œ": "oe", "đ": "d", "ð": "d", "þ": "th"})


def folded(word: str) -> str:
    """A word in small letters without accents and apostrophes, as the lexicon has it: "O'Brien" is "obrien"."""
    decomposed = unicodedata.normalize("NFKD", word.lower().translate(_LETTERS))
    return "".join(c for c in decomposed if not unicodedata.combining(c) and c not in "'’")


def hashed_ngrams(word: str) -> list[int]:
    """Indices below `2**BITS` of the n-grams of a folded word, each once; crc32 is the same on every machine."""
    framed = f"^{word}$"
    ngrams = {framed[i : i + n] for n in _LENGTHS for i in range(len(framed) - n + 1)}
    return sorted({zlib.crc32(ngram.encode()) & ((1 << BITS) - 1) for ngram in ngrams})


@lru_cache(1 << 16)
def name_score(word: str) -> float:
    """Natural log-odds, roughly, that a word out of context is a name; below 0 it is rather an ordinary word.

    Of a hyphenated word the whole counts if the lexicon has it, else the mean of its parts.
    """
    whole = folded(word)
    table = _table()
    joined = whole.replace("-", "")
    if joined in table:
        return float(table[joined])
    parts = [part for part in whole.split("-") if part]
    scores = list(_scores(parts))
    return sum(scores) / len(scores) if scores else UNKNOWN


def _scores(parts: list[str]) -> Iterator[float]:
    weights, scale, intercept = _model()
    for part in parts:
        if part in _table():
            yield float(_table()[part])
        elif len(part) < _SHORT or not part.isalpha():
            yield UNKNOWN
        else:
            indices = hashed_ngrams(part)
            yield float(weights[indices].astype(int).sum()) * scale / len(indices) ** 0.5 + intercept


@cache
def _table() -> dict[str, int]:
    import numpy as np

    with np.load(FILE) as file:
        words = file["words"].tobytes().decode("ascii").split("\n")
        return dict(zip(words, file["scores"].tolist(), strict=True))


@cache
def _model() -> tuple[NDArray[np.int8], float, float]:
    import numpy as np

    with np.load(FILE) as file:
        return file["weights"], float(file["scale"]), float(file["intercept"])
