"""Length and repetition of a caption."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from stages.signals.family import PairFamily


class Text(PairFamily):
    """`characters` (code points), `words` (split at white space, as DataComp counts them) and `repetition`.

    `repetition` is the share of words that already occurred, ignoring case: 1 - distinct words / words; 0 for no words.
    CC12M's paper (arXiv:2102.08981, section 2.2) bounds "the fraction of word repetition" without a formula; this
    is our reading of it.
    """

    columns = (("characters", pa.int32()), ("words", pa.int32()), ("repetition", pa.float32()))

    def measure(self, caption: str, meta: dict[str, Any]) -> dict[str, Any]:
        """See the class."""
        words = caption.split()
        distinct = len({word.casefold() for word in words})
        return {
            "characters": len(caption),
            "words": len(words),
            "repetition": 1 - distinct / len(words) if words else 0.0,
        }
