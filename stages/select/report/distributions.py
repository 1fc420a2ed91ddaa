"""Computes histograms of every signal, over all fetched and over all kept images or pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

if TYPE_CHECKING:
    from stages.select.decision import Decision

_SHARE = [0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95]
_COSINE = [-1, 0, 0.05, 0.1, 0.15, 0.2, 0.22, 0.24, 0.26, 0.28, 0.3, 0.32, 0.34, 0.36, 0.4]
_SIDE: list[float] = [0, 32, 64, 128, 200, 256, 384, 512, 768, 1024, 2048]
_GREY: list[float] = [0, 16, 32, 48, 64, 80, 96, 112, 128, 144, 160, 176, 192, 208, 224, 240]

#: Lower edges of the bins; the last bin also contains everything above, the first everything below.
EDGES: dict[str, list[float]] = {
    "shorter_side": _SIDE,
    "aspect_ratio": [1, 1.1, 1.25, 1.5, 1.75, 2, 2.5, 3, 4, 6],
    "bytes": [0, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000, 5_000_000],
    "brightness": _GREY,
    "contrast": _GREY[:9],
    "entropy": [0, 1, 2, 3, 4, 5, 5.5, 6, 6.5, 7, 7.25, 7.5, 7.75],
    "sharpness": [0, 1, 3, 10, 30, 100, 200, 400, 800, 1600, 3200, 6400],
    "nsfw": _SHARE,
    "text_coverage": [0, 0.001, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7],
    "faces": [0, 1, 2, 3, 4, 5, 6, 8, 12],
    "words": [0, 1, 3, 5, 8, 12, 16, 24, 32, 64, 128],
    "characters": [0, 5, 10, 20, 40, 60, 80, 120, 160, 240, 480, 1000],
    "repetition": _SHARE,
    "language_score": _SHARE,
    "letters": _SHARE,
    "digits": _SHARE,
    "similarity": _COSINE,
    "similarity_l14": _COSINE,
    "clip_similarity": _COSINE,
    "unsafe": _SHARE,
    "watermark": _SHARE,
    "longest_word": [0, 2, 4, 6, 8, 10, 12, 16, 20, 30, 50],
    "listed_width": _SIDE,
    "listed_height": _SIDE,
    "aesthetic": [0, 1, 2, 3, 3.5, 4, 4.5, 5, 5.5, 6, 6.5, 7, 8],
}

#: Columns that are positions or bookkeeping, or that another histogram already shows.
_NOT_SHOWN = frozenset(
    {"source", "shard", "offset", "length", "group", "image", "measured", "decoded", "width", "height"}
)
_BINS = 12


def distributions(
    decision: Decision, kept_pairs: NDArray[np.bool_], kept_images: NDArray[np.bool_]
) -> dict[str, dict[str, Any]]:
    """Signal -> `edges`, `fetched`, `kept`, `of` (image or pair), `measured`, and `only` where all values are one;
    signals without values are left out.

    Signals with fixed edges come first, in the order of :data:`EDGES`; any other numeric column (a family from another
    package) gets equal bins between its smallest and largest value.
    """
    index = decision.index
    histograms: dict[str, dict[str, Any]] = {}
    images: dict[str, pa.ChunkedArray] = {}
    if {"width", "height"} <= set(index.images.column_names):
        images["shorter_side"] = pc.min_element_wise(index.images["width"], index.images["height"], skip_nulls=False)
    images |= {name: index.images[name] for name in index.images.column_names if name not in _NOT_SHOWN}
    pairs = {name: index.pairs[name] for name in index.pairs.column_names if name not in _NOT_SHOWN}
    for kind, columns, kept in (("image", images, kept_images), ("pair", pairs, kept_pairs)):
        for name, column in columns.items():
            histogram = _histogram(name, column, kept) if _numeric(column.type) else None
            if histogram is not None and name not in histograms:
                histograms[name] = {**histogram, "of": kind}
    known = [name for name in EDGES if name in histograms]
    return {name: histograms[name] for name in [*known, *sorted(set(histograms) - set(known))]}


def _numeric(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind)


def _histogram(name: str, column: pa.ChunkedArray, kept: NDArray[np.bool_]) -> dict[str, Any] | None:
    values = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
    finite = np.isfinite(values)
    if not finite.any():
        return None
    values, kept = values[finite], kept[finite]
    edges = EDGES.get(name) or _equal_bins(values)
    # Clipped: the first bin also counts values below it, the last values above.
    bins = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 1)
    return {
        "edges": edges,
        "fetched": np.bincount(bins, minlength=len(edges)).tolist(),
        "kept": np.bincount(bins[kept], minlength=len(edges)).tolist(),
        "measured": len(values),
        **({"only": float(values[0])} if (values == values[0]).all() else {}),
    }


def _equal_bins(values: NDArray[np.float64]) -> list[float]:
    low, high = float(values.min()), float(values.max())
    if low == high:
        return [low]
    return [float(f"{low + (high - low) * n / _BINS:.4g}") for n in range(_BINS)]
