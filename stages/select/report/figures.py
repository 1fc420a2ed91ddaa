"""The figures of the data report: everything in `report.json`, and all numbers on the page. Counts and uids only."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from stages.select.config import SelectConfig
from stages.select.verdict import KEPT, Decision

#: Bin edges; the last bin also takes everything above.
EDGES: dict[str, list[float]] = {
    "shorter_side": [0, 32, 64, 128, 200, 256, 384, 512, 768, 1024, 2048],
    "aspect_ratio": [1, 1.1, 1.25, 1.5, 1.75, 2, 2.5, 3, 4, 6],
    "words": [0, 1, 3, 5, 8, 12, 16, 24, 32, 64, 128],
}
#: Clusters and leaked images listed at most; `verdicts.parquet` has all.
LISTED = 1000
_STEPS = (
    ("fetched", "download."),
    ("rules", "rule."),
    ("benchmarks", "benchmark."),
    ("duplicates", "duplicate."),
    ("cap", "cap"),
)


def figures(decision: Decision, config: SelectConfig) -> dict[str, Any]:
    """All figures as JSON values, in an order that depends on the data alone."""
    sources = {
        name: _source(decision, number, name in config.private_sources)
        for number, name in enumerate(decision.tables.sources)
    }
    return {
        "selection": config.selection.model_dump(mode="json"),
        "totals": _totals(decision),
        "sources": sources,
        "distributions": _distributions(decision),
        "languages": _languages(decision),
        "duplicates": {kind: _clusters(decision, f"duplicate.{kind}") for kind in ("exact", "near")},
        "benchmarks": {name: _leaks(decision, name, config) for name in sorted(config.benchmarks)},
    }


def _by_reason(decision: Decision, rows: NDArray[np.bool_]) -> dict[str, int]:
    """Reason -> pairs, most frequent first."""
    counts = np.bincount(decision.code[rows], minlength=len(decision.reasons))
    found = [(reason, int(n)) for reason, n in zip(decision.reasons, counts, strict=True) if n and reason != ""]
    return dict(sorted(found, key=lambda item: (-item[1], item[0])))


def _totals(decision: Decision) -> dict[str, Any]:
    every = np.ones(len(decision.code), dtype=bool)
    return {
        "pairs": len(decision.code),
        "kept_pairs": int((decision.code == KEPT).sum()),
        "fetched_images": decision.tables.images.num_rows,
        "kept_images": len(decision.alive()),
        "reasons": _by_reason(decision, every),
    }


def _source(decision: Decision, number: int, private: bool) -> dict[str, Any]:
    tables = decision.tables
    mine = tables.pairs["source"].to_numpy() == number
    attempts = tables.attempts.filter(pc.equal(tables.attempts["source"], number))
    statuses = {row["values"]: row["counts"] for row in pc.value_counts(attempts["status"]).to_pylist()}
    success = statuses.pop("success", 0)
    listed = _images(decision, mine)
    measured = int(pc.sum(pc.is_in(attempts["image_uid"], value_set=_uids(tables.images))).as_py() or 0)
    failures = dict(sorted(statuses.items(), key=lambda item: (-item[1], item[0])))
    return {
        "private": private,
        "pairs": int(mine.sum()),
        "kept_pairs": int((mine & (decision.code == KEPT)).sum()),
        "attempts": {
            "listed": listed,
            "tried": attempts.num_rows,
            "success": success,
            "failures": failures,
            "measured": measured,
            "accounted": listed == attempts.num_rows == success + sum(failures.values()) and success == measured,
        },
        "reasons": _by_reason(decision, mine),
        "funnel": _funnel(decision, mine),
    }


def _funnel(decision: Decision, mine: NDArray[np.bool_]) -> list[dict[str, Any]]:
    """Pairs and images left after each step."""
    left = mine.copy()
    steps = [{"step": "listed", "pairs": int(left.sum()), "images": _images(decision, left)}]
    for step, prefix in _STEPS:
        codes = [code for code, reason in enumerate(decision.reasons) if reason.startswith(prefix)]
        left &= ~np.isin(decision.code, codes)
        steps.append({"step": step, "pairs": int(left.sum()), "images": _images(decision, left)})
    return steps


def _images(decision: Decision, rows: NDArray[np.bool_]) -> int:
    return int(pc.count_distinct(decision.tables.pairs["image_uid"].filter(pa.array(rows))).as_py())


def _uids(images: pa.Table) -> pa.Array:
    return images["image_uid"].combine_chunks()


def _distributions(decision: Decision) -> dict[str, Any]:
    """Histograms over all that was fetched, and over what is kept: sides and ratio per image, words per pair."""
    images, captions = decision.tables.images, decision.tables.captions
    kept = np.zeros(images.num_rows, dtype=bool)
    kept[decision.alive()] = True
    decoded = images["width"].is_valid().to_numpy()
    side = pc.min_element_wise(images["width"], images["height"]).to_numpy()[decoded]
    ratio = images["aspect_ratio"].to_numpy()[decoded]
    kept_caption = _kept_captions(decision)
    return {
        "shorter_side": _histogram("shorter_side", side, kept[decoded]),
        "aspect_ratio": _histogram("aspect_ratio", ratio, kept[decoded]),
        "words": _histogram("words", captions["words"].to_numpy(), kept_caption),
    }


def _kept_captions(decision: Decision) -> NDArray[np.bool_]:
    kept = decision.tables.pairs["uid"].filter(pa.array(decision.code == KEPT))
    uids = decision.tables.captions["uid"]
    return pc.is_in(uids, value_set=kept.combine_chunks()).to_numpy().astype(bool)


def _histogram(name: str, values: NDArray[Any], kept: NDArray[np.bool_]) -> dict[str, Any]:
    edges = EDGES[name]
    bins = np.array([*edges, np.inf])
    return {
        "edges": edges,
        "fetched": np.histogram(values, bins)[0].tolist(),
        "kept": np.histogram(values[kept], bins)[0].tolist(),
    }


def _languages(decision: Decision) -> list[dict[str, Any]]:
    captions = decision.tables.captions
    table = pa.table({"language": captions["language"], "kept": pa.array(_kept_captions(decision), pa.int8())})
    grouped = table.group_by("language").aggregate([("kept", "count"), ("kept", "sum")]).to_pylist()
    rows = [
        {"language": row["language"] or "none", "pairs": row["kept_count"], "kept": row["kept_sum"]} for row in grouped
    ]
    return sorted(rows, key=lambda row: (-row["pairs"], row["language"]))


def _private_images(decision: Decision, uids: list[str], config: SelectConfig) -> set[str]:
    sources = decision.tables.sources
    numbers = pa.array([n for n, name in enumerate(sources) if name in config.private_sources], pa.int16())
    attempts = decision.tables.attempts
    private = pc.is_in(attempts["source"], value_set=numbers)
    mine = pc.and_(private, pc.is_in(attempts["image_uid"], value_set=pa.array(uids, pa.string())))
    return set(attempts["image_uid"].filter(mine).to_pylist())


def _clusters(decision: Decision, reason: str) -> dict[str, Any]:
    """Groups of copies by their survivor, largest first."""
    if reason not in decision.reasons:
        return {"images": 0, "clusters": []}
    copies = np.flatnonzero(decision.image_code == decision.reasons.index(reason))
    uids = _uids(decision.tables.images)
    survivors, sizes = np.unique(decision.survivor[copies], return_counts=True)
    largest = np.lexsort((survivors, -sizes))[:LISTED]
    clusters = []
    for survivor in survivors[largest]:
        members = copies[decision.survivor[copies] == survivor]
        clusters.append({"survivor": uids[int(survivor)].as_py(), "copies": uids.take(pa.array(members)).to_pylist()})
    return {"images": len(copies), "clusters": clusters}


def _leaks(decision: Decision, benchmark: str, config: SelectConfig) -> dict[str, Any]:
    reason = f"benchmark.{benchmark}"
    if reason not in decision.reasons:
        return {"images": 0, "pairs": 0, "found": []}
    code = decision.reasons.index(reason)
    rows = np.flatnonzero(decision.image_code == code)
    uids = _uids(decision.tables.images).take(pa.array(rows[:LISTED])).to_pylist()
    private = _private_images(decision, uids, config)
    # Which of the benchmark's images a private one shows would tell what is in it.
    found = [
        {"image_uid": uid, "benchmark_image": None if uid in private else str(decision.benchmark_file[row])}
        for uid, row in zip(uids, rows[:LISTED].tolist(), strict=True)
    ]
    return {"images": len(rows), "pairs": int((decision.code == code).sum()), "found": found}
