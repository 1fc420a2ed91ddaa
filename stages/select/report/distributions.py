"""Computes histograms of every signal, over all fetched and over all kept images or pairs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from stages.select.decision import Decision
from stages.select.job import Passes

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

#: A column and what its rows are (image or pair).
Signal = tuple[str, str]


@dataclass(frozen=True)
class Histogram:
    """Values of a column, counted."""

    fetched: NDArray[np.int64]
    """By bin."""
    kept: NDArray[np.int64]
    low: float
    """Smallest value."""
    high: float

    def __add__(self, other: Histogram) -> Histogram:
        low, high = min(self.low, other.low), max(self.high, other.high)
        return Histogram(self.fetched + other.fetched, self.kept + other.kept, low, high)


Histograms = dict[Signal, Histogram]


def edges_of(passes: Passes) -> dict[Signal, list[float]]:
    """Lower edges of the bins of every numeric column.

    Those of :data:`EDGES` are fixed; any other numeric column (a family from another package) gets equal bins between
    its smallest and its largest value in all ranges, and none if it has no values.
    """
    index = passes.job.index
    if not index.ranges:
        return {}
    signals = _columns(index.images(0), index.pairs(0))
    edges = {signal: EDGES[signal[0]] for signal in signals if signal[0] in EDGES}
    others = [signal for signal in signals if signal not in edges]
    if others:
        ends: dict[Signal, tuple[float, float]] = {}
        for part in passes.read(_extremes, others):
            for signal, (low, high) in part.items():
                known = ends.get(signal, (low, high))
                ends[signal] = min(low, known[0]), max(high, known[1])
        edges |= {signal: _equal_bins(*ends[signal]) for signal in others if signal in ends}
    return edges


def histograms(
    decision: Decision,
    edges: Mapping[Signal, list[float]],
    kept_pairs: NDArray[np.bool_],
    kept_images: NDArray[np.bool_],
) -> Histograms:
    """The values of a range in these bins; signals without values are left out."""
    found: Histograms = {}
    columns = _columns(decision.images, decision.pairs)
    for signal, bins in edges.items():
        kept = kept_images if signal[1] == "image" else kept_pairs
        histogram = _histogram(columns[signal](), kept, bins)
        if histogram is not None:
            found[signal] = histogram
    return found


def distributions(drawn: Histograms, edges: Mapping[Signal, list[float]]) -> dict[str, dict[str, Any]]:
    """Signal -> `edges`, `fetched`, `kept`, `of` (image or pair), `measured`, and `only` where all values are one;
    signals without values are left out. Those with fixed edges come first, in the order of :data:`EDGES`."""
    shown: dict[str, dict[str, Any]] = {}
    for (name, kind), h in sorted(drawn.items()):  # images before pairs
        if name not in shown:
            shown[name] = {
                "edges": edges[name, kind],
                "fetched": h.fetched.tolist(),
                "kept": h.kept.tolist(),
                "measured": int(h.fetched.sum()),
                **({"only": h.low} if h.low == h.high else {}),
                "of": kind,
            }
    known = [name for name in EDGES if name in shown]
    return {name: shown[name] for name in [*known, *sorted(set(shown) - set(known))]}


def _columns(images: pa.Table, pairs: pa.Table) -> dict[Signal, Callable[[], pa.ChunkedArray]]:
    """The columns of which a histogram is drawn."""
    columns: dict[Signal, Callable[[], pa.ChunkedArray]] = {}
    if {"width", "height"} <= set(images.column_names):
        columns["shorter_side", "image"] = lambda: pc.min_element_wise(
            images["width"], images["height"], skip_nulls=False
        )
    for kind, table in (("image", images), ("pair", pairs)):
        for name in table.column_names:
            if _numeric(table.schema.field(name).type) and name not in _NOT_SHOWN and not name.startswith("class_"):
                columns.setdefault((name, kind), partial(table.column, name))
    return columns


def _numeric(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind)


def _finite(column: pa.ChunkedArray) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """A column's values, and which of them are finite."""
    values = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
    return values, np.isfinite(values)


def _extremes(decision: Decision, signals: Sequence[Signal]) -> dict[Signal, tuple[float, float]]:
    columns = _columns(decision.images, decision.pairs)
    ends = {}
    for signal in signals:
        values, finite = _finite(columns[signal]())
        if finite.any():
            ends[signal] = float(values[finite].min()), float(values[finite].max())
    return ends


def _histogram(column: pa.ChunkedArray, kept: NDArray[np.bool_], edges: list[float]) -> Histogram | None:
    values, finite = _finite(column)
    if not finite.any():
        return None
    values, kept = values[finite], kept[finite]
    # Clipped: the first bin also counts values below it, the last values above.
    bins = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 1)
    fetched = np.bincount(bins, minlength=len(edges))
    return Histogram(fetched, np.bincount(bins[kept], minlength=len(edges)), float(values.min()), float(values.max()))


def _equal_bins(low: float, high: float) -> list[float]:
    if low == high:
        return [low]
    return [float(f"{low + (high - low) * n / _BINS:.4g}") for n in range(_BINS)]
