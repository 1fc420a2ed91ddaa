"""Groups of copies, and training images that a benchmark holds: uids only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

if TYPE_CHECKING:
    from stages.select.verdict import Decision

#: Clusters and leaked images listed at most; `verdicts.parquet` has all.
LISTED = 1000
#: Copies of one cluster listed at most.
COPIES = 100
_SIZES = (2, 3, 4, 5, 10, 20, 50, 100, 1000)


def clusters(decision: Decision, reason: str) -> dict[str, Any]:
    """Groups of copies by their survivor, largest first: `images` dropped, all `groups`, their `sizes`, and the
    largest as `clusters` of `survivor`, `copies` and how many `more` copies are not listed."""
    if reason not in decision.reasons:
        return {"images": 0, "groups": 0, "sizes": {}, "clusters": []}
    copies = np.flatnonzero(decision.image_code == decision.reasons.index(reason))
    copies = copies[np.argsort(decision.survivor[copies], kind="stable")]
    survivors, starts, sizes = np.unique(decision.survivor[copies], return_index=True, return_counts=True)
    uids = decision.index.images["image_uid"].combine_chunks()
    found = []
    for place in np.lexsort((survivors, -sizes))[:LISTED]:
        first = starts[place]
        members = copies[first : first + min(int(sizes[place]), COPIES)]
        listed = uids.take(pa.array([int(survivors[place]), *members.tolist()])).to_pylist()
        entry: dict[str, Any] = {"survivor": listed[0], "copies": listed[1:]}
        if sizes[place] > COPIES:
            entry["more"] = int(sizes[place]) - COPIES
        found.append(entry)
    return {"images": len(copies), "groups": len(survivors), "sizes": _sizes(sizes + 1), "clusters": found}


def _sizes(sizes: NDArray[np.int64]) -> dict[str, int]:
    """Images in a group, the survivor among them -> groups; the last bin is open-ended."""
    counts = np.bincount(np.searchsorted(_SIZES, sizes, side="right") - 1, minlength=len(_SIZES))
    names = [
        f"{low}+" if high is None else f"{low}" if high == low + 1 else f"{low}-{high - 1}"
        for low, high in zip(_SIZES, (*_SIZES[1:], None), strict=True)
    ]
    return {name: int(count) for name, count in zip(names, counts, strict=True) if count}


def leaks(decision: Decision, benchmark: str, private_sources: Sequence[str]) -> dict[str, Any]:
    """What one benchmark cost: images and pairs dropped, pairs dropped for their text, and the images."""
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
    # Which of the benchmark's images a private one shows would tell what is in it.
    found = [
        {
            "image_uid": uid,
            "benchmark_image": None if index.sources[n] in private_sources else str(decision.benchmark_file[row]),
        }
        for uid, n, row in zip(uids, numbers, rows[:LISTED].tolist(), strict=True)
    ]
    return {"images": len(rows), "pairs": int((decision.code == code).sum()), "texts": texts, "found": found}
