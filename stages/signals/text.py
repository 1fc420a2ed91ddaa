"""What a caption is made of, without a model."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Any

from stages.signals.family import Cost, Listing, NoConfig, PairFamily

_URL = re.compile(r"https?://|\bwww\.\w", re.IGNORECASE)


class Text(PairFamily[NoConfig]):
    """`characters` (code points), `words` (split at white space, as DataComp counts them), `repetition`, `letters`,
    `digits`, `longest_word` (code points) and `has_url`.

    - `repetition` is the share of words that already occurred, ignoring case: 1 - distinct words / words; 0 for no
      words. CC12M's paper (arXiv:2102.08981, section 2.2) bounds "the fraction of word repetition" without a formula;
      this is our reading of it.
    - `letters` and `digits` are the shares of those among the characters that are no white space; 0 for none. Letters
      are Unicode's categories L and M (marks are half of a word in Indic scripts), digits N. Data-Juicer filters by
      such ratios (alphanumeric, special characters), Gopher by words that hold letters (arXiv:2112.11446, A.1.1).
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
