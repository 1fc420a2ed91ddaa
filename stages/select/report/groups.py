"""Figures of clusters of copies, and of training images that a benchmark contains: uids only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

if TYPE_CHECKING:
    from stages.select.decision import Decision

#: Maximum number of clusters and leaked images listed; `verdicts.parquet` has all.
LISTED = 1000
#: Maximum number of copies listed per cluster.
COPIES = 100
_SIZES = (2, 3, 4, 5, 10, 20, 50, 100, 1000)


def clusters(decision: Decision, reason: str) -> dict[str, Any]:
    """Clusters of copies by survivor, largest first: number of `images` dropped, of `groups`, their `sizes`, and the
    largest as `clusters` of `survivor`, `copies` and the number of `more` copies that are not listed."""
    if reason not in decision.reasons:
        return {"images": 0, "groups": 0, "sizes": {}, "clusters": []}
    copies = np.flatnonzero(decision.image_code == decision.reasons.index(reason))
    copies = copies[np.argsort(decision.survivor[copies], kind="stable")]
    survivors, starts, sizes = np.unique(decision.survivor[copies], return_index=True, return_counts=True)
    uids = decision.index.images["image_uid"].combine_chunks()
    largest = []
    for cluster in np.lexsort((survivors, -sizes))[:LISTED]:
        first = starts[cluster]
        rows = copies[first : first + min(int(sizes[cluster]), COPIES)]
        listed = uids.take(pa.array([int(survivors[cluster]), *rows.tolist()])).to_pylist()
        entry: dict[str, Any] = {"survivor": listed[0], "copies": listed[1:]}
        if sizes[cluster] > COPIES:
            entry["more"] = int(sizes[cluster]) - COPIES
        largest.append(entry)
    return {"images": len(copies), "groups": len(survivors), "sizes": _sizes(sizes + 1), "clusters": largest}


def _sizes(sizes: NDArray[np.int64]) -> dict[str, int]:
    """Images in a cluster, survivor included -> number of clusters; the last bin is open-ended."""
    counts = np.bincount(np.searchsorted(_SIZES, sizes, side="right") - 1, minlength=len(_SIZES))
    names = [
        f"{low}+" if high is None else f"{low}" if high == low + 1 else f"{low}-{high - 1}"
        for low, high in zip(_SIZES, (*_SIZES[1:], None), strict=True)
    ]
    return {name: int(count) for name, count in zip(names, counts, strict=True) if count}


def leaks(decision: Decision, benchmark: str, private_sources: Sequence[str]) -> dict[str, Any]:
    """Losses to one benchmark: number of images and pairs dropped, of pairs dropped for their text, and the images."""
    index = decision.index
    text = f"benchmark_text.{benchmark}"
    texts = int((decision.code == decision.reasons.index(text)).sum()) if text in decision.reasons else 0
    reason = f"benchmark.{benchmark}"
    if reason not in decision.reasons:
        return {"images": 0, "pairs": 0, "texts": texts, "found": []}
    code = decision.reasons.index(reason)
    rows = np.flatnonzero(decision.image_code == code)
    uids = index.images["image_uid"].take(pa.array(rows[:LISTED])).to_pylist()
    numbers = index.images["source"].to_numpy()[rows[:LISTED]].tolist()
    # The name of the benchmark's image would reveal what a private image shows.
    leaked = [
        {
            "image_uid": uid,
            "benchmark_image": None if index.sources[n] in private_sources else str(decision.benchmark_file[row]),
        }
        for uid, n, row in zip(uids, numbers, rows[:LISTED].tolist(), strict=True)
    ]
    return {"images": len(rows), "pairs": int((decision.code == code).sum()), "texts": texts, "found": leaked}
