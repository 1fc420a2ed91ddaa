"""The family that carries over columns of the source's list: what its authors computed from their copy of the image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stages.signals.family import Cost, Listing, NoConfig, PairFamily

#: Our column -> its names in the lists of LAION, DataComp and COCO, in order of preference.
_SCORES = {
    "similarity": ("similarity", "clip_b32_similarity_score"),
    "similarity_l14": ("clip_l14_similarity_score",),
    "unsafe": ("punsafe",),
    "watermark": ("pwatermark",),
    "aesthetic": ("aesthetic", "AESTHETIC_SCORE", "aesthetic_score"),
}
_OF_THE_TEXT = ("similarity", "similarity_l14")
_PIXELS = {
    "listed_width": ("WIDTH", "width", "original_width"),
    "listed_height": ("HEIGHT", "height", "original_height"),
}

#: A number beyond this is an error in the list.
_MOST = 10**12


class ListColumns(PairFamily[NoConfig]):
    """Columns of LAION's, DataComp's and COCO's lists; null where the list has no value. What compares the image with
    its text (`similarity`, `similarity_l14`) is null in an image-only source, whatever the list says.

    `similarity` and `similarity_l14` (cosine of CLIP ViT-B/32's and ViT-L/14's embeddings), `unsafe` and `watermark`
    (probabilities), `aesthetic` (LAION's predictor, about 0..10), `listed_nsfw` (LAION-400M's tag: UNLIKELY, UNSURE,
    NSFW), and the image's size before: `listed_width`, `listed_height` (some of LAION's releases have them swapped).
    """

    name = "listed"
    columns = {
        **dict.fromkeys(_SCORES, "float32"),
        "listed_nsfw": "string",
        **dict.fromkeys(_PIXELS, "int32"),
    }
    cost = Cost(0.01)
    needs_caption = False

    def measure(self, pairs: Sequence[Listing]) -> list[dict[str, Any]]:
        """See the class."""
        return [
            _measure(pair.meta) if pair.caption else {**_measure(pair.meta), **dict.fromkeys(_OF_THE_TEXT)}
            for pair in pairs
        ]


def _measure(meta: Mapping[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {name: _first_number(meta, names) for name, names in _SCORES.items()}
    tag = meta.get("NSFW")
    row["listed_nsfw"] = tag.strip().upper() or None if isinstance(tag, str) else None
    for name, names in _PIXELS.items():
        size = _first_number(meta, names)
        row[name] = int(size) if size is not None and 1 <= size < 2**31 else None
    return row


def _first_number(meta: Mapping[str, Any], names: tuple[str, ...]) -> float | None:
    for name in names:
        value = meta.get(name)
        # The bound excludes NaN, infinity, and integers that no float represents.
        if isinstance(value, int | float) and not isinstance(value, bool) and -_MOST <= value <= _MOST:
            return float(value)
    return None
