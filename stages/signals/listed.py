"""What the source's own list says of a pair: scores that its makers computed from the image they saw."""

from __future__ import annotations

import math
from typing import Any

import pyarrow as pa

from stages.signals.family import PairFamily

#: Our column -> the names it goes by in LAION's and DataComp's tables, best first.
_NAMES = {
    "similarity": ("similarity", "clip_b32_similarity_score"),
    "unsafe": ("punsafe",),
    "watermark": ("pwatermark",),
}


class Listed(PairFamily):
    """`similarity` (CLIP ViT-B/32 cosine of image and caption), `unsafe` and `watermark` (probabilities); null where
    the list does not say."""

    columns = tuple((name, pa.float32()) for name in _NAMES)

    def measure(self, caption: str, meta: dict[str, Any]) -> dict[str, Any]:
        """See the class."""
        return {name: _first_number(meta, names) for name, names in _NAMES.items()}


def _first_number(meta: dict[str, Any], names: tuple[str, ...]) -> float | None:
    for name in names:
        value = meta.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
    return None
