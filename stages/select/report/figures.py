"""Computes the figures of the data report: all of `report.json` and all numbers on the page. Counts and uids only.

Each range counts for itself; what the driver holds is the sum, whatever the number of rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from stages.select.decision import KEPT, Decision
from stages.select.job import Job, Passes
from stages.select.report.codes import codes
from stages.select.report.distributions import Histograms, distributions, edges_of, histograms
from stages.select.report.groups import clusters, leaks
from stages.select.report.hosts import hosts
from stages.select.report.samples import SampleRow, first_samples, merged_samples

_STEPS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("fetched", ("forgotten", "download.")),
    ("rules", ("rule.", "fraction.")),
    ("benchmarks", ("benchmark.", "benchmark_text.")),
    ("duplicates", ("duplicate.",)),
    ("cap", ("mixture", "cap")),
)
_FUNNEL = ("listed", *(step for step, _ in _STEPS))

#: What is counted, by name and by what it is counted for: `("reason", source, reason)`.
Counts = Counter[tuple[Any, ...]]


@dataclass
class DataReport:
    """The figures, and what the page shows besides."""

    numbers: dict[str, Any]
    """JSON values, in an order that depends on the data alone."""
    rows: dict[str, int] = field(default_factory=dict)
    """image_uid -> global row of the images that the page may show of what `numbers` lists."""
    samples: dict[str, list[SampleRow]] = field(default_factory=dict)
    """Reason (empty: kept) -> a few pairs of public sources."""


def figures(passes: Passes) -> DataReport:
    """Count everything. The ranges must be decided."""
    job = passes.job
    edges = edges_of(passes)
    counts: Counts = Counter()
    drawn: Histograms = {}
    samples: dict[str, list[SampleRow]] = {}
    for part in passes.read(_range_figures, edges):
        counts.update(part.counts)
        for key, histogram in part.histograms.items():
            drawn[key] = histogram if key not in drawn else drawn[key] + histogram
        samples = merged_samples(samples, part.samples)
    names = job.index.sources
    copies, rows = clusters(passes, counts)
    found, leaked_rows = leaks(passes, _benchmarks(job, counts), counts)
    numbers = {
        "selection": job.config.selection.model_dump(mode="json"),
        "totals": _totals(job, counts),
        "sources": {name: _source(job, counts, n, n in job.private) for n, name in enumerate(names)},
        "hosts": hosts(passes),
        "distributions": distributions(drawn, edges),
        "languages": _languages(counts),
        "duplicates": copies,
        "benchmarks": found,
    }
    return DataReport(numbers, {**rows, **leaked_rows}, samples)


@dataclass
class _RangeFigures:
    counts: Counts
    histograms: Histograms
    samples: dict[str, list[SampleRow]]


def _range_figures(decision: Decision, edges: Mapping[tuple[str, str], list[float]]) -> _RangeFigures:
    counts: Counts = Counter()
    kept, kept_images = decision.code == KEPT, decision.kept_images
    _count_pairs(decision, counts, kept)
    _count_images(decision, counts, kept_images)
    _count_languages(decision, counts, kept)
    return _RangeFigures(counts, histograms(decision, edges, kept, kept_images), first_samples(decision))


def _count_pairs(decision: Decision, counts: Counts, kept: NDArray[np.bool_]) -> None:
    sources, reasons = len(decision.index.sources), decision.reasons
    cells = decision.source.astype(np.int64) * len(reasons) + decision.code
    table = np.bincount(cells, minlength=sources * len(reasons)).reshape(sources, len(reasons))
    for source, code in np.argwhere(table).tolist():
        counts["reason", source, reasons[code]] += int(table[source, code])
    shown = np.bincount(decision.source, weights=decision.repeats, minlength=sources)
    for source in range(sources):
        counts["epoch", source] += int(shown[source])
    if decision.image_only is not None:
        counts[("kept_without_text",)] += int((kept & decision.image_only).sum())
    # Images left after each step: an image is left as long as its last pair.
    last = len(_STEPS)
    step_of = [next((n for n, (_, heads) in enumerate(_STEPS) if r.startswith(heads)), last) for r in reasons]
    lost_at = np.array(step_of, dtype=np.int8)[decision.code]
    image_lost_at = np.full(len(decision.image_code), -1, dtype=np.int8)
    for number in range(last + 1):
        image_lost_at[decision.image_of[lost_at == number]] = number  # the last write wins: the latest step
    for name, source_of, lost in (
        ("pairs", decision.source, lost_at),
        ("images", decision.image_source, image_lost_at),
    ):
        there = lost >= 0
        cells = source_of[there].astype(np.int64) * (last + 1) + lost[there]
        table = np.bincount(cells, minlength=sources * (last + 1)).reshape(sources, last + 1)
        left = table[:, ::-1].cumsum(axis=1)[:, ::-1]
        for source, number in np.argwhere(left).tolist():
            counts["funnel", source, number, name] += int(left[source, number])


def _count_images(decision: Decision, counts: Counts, kept_images: NDArray[np.bool_]) -> None:
    sources = len(decision.index.sources)
    status = codes(decision.images["status"])
    known = status.of >= 0
    cells = decision.image_source[known].astype(np.int64) * len(status.names) + status.of[known]
    table = np.bincount(cells, minlength=sources * len(status.names)).reshape(sources, len(status.names))
    for source, code in np.argwhere(table).tolist():
        counts["status", source, status.names[code]] += int(table[source, code])
    measured = decision.images["decoded"].is_valid().to_numpy()
    for name, values in (("images", decision.image_source), ("measured", decision.image_source[measured])):
        for source, number in enumerate(np.bincount(values, minlength=sources).tolist()):
            counts[name, source] += number
    counts[("kept_images",)] += int(kept_images.sum())


def _count_languages(decision: Decision, counts: Counts, kept: NDArray[np.bool_]) -> None:
    pairs = decision.pairs
    if "language" not in pairs.column_names:
        return
    languages = codes(pairs["language"])
    measured = pc.fill_null(pairs["measured"], False).to_numpy(zero_copy_only=False).astype(bool)
    if decision.image_only is not None:
        measured &= ~decision.image_only
    names = [*languages.names, "none"]
    code = np.where(languages.of >= 0, languages.of, len(languages.names))
    for kind, which in (("pairs", measured), ("kept", kept & measured)):
        for name, number in zip(names, np.bincount(code[which], minlength=len(names)).tolist(), strict=True):
            counts["language", name, kind] += number


def _by_reason(counts: Mapping[str, int]) -> dict[str, int]:
    """Reason -> pairs, most frequent first."""
    nonzero = [(reason, n) for reason, n in counts.items() if n and reason != ""]
    return dict(sorted(nonzero, key=lambda item: (-item[1], item[0])))


def _reasons(counts: Counts, source: int | None = None) -> Counter[str]:
    """Reason -> pairs, of a source or of all."""
    total: Counter[str] = Counter()
    for key, n in counts.items():
        if key[0] == "reason" and source in (None, key[1]):
            total[key[2]] += n
    return total


def _sum(counts: Counts, name: str) -> int:
    return sum(n for key, n in counts.items() if key[0] == name)


def _totals(job: Job, counts: Counts) -> dict[str, Any]:
    reasons = _reasons(counts)
    without_text = counts[("kept_without_text",)]
    return {
        **({"kept_without_text": without_text} if any(job.index.image_only) else {}),
        "pairs": reasons.total(),
        "kept_pairs": reasons[""],
        "listed_images": _sum(counts, "images"),
        "fetched_images": sum(n for key, n in counts.items() if key[0] == "status" and key[2] == "success"),
        "kept_images": counts[("kept_images",)],
        "epoch_pairs": _sum(counts, "epoch"),
        "reasons": _by_reason(reasons),
    }


def _source(job: Job, counts: Counts, number: int, private: bool) -> dict[str, Any]:
    statuses = {key[2]: n for key, n in counts.items() if key[:2] == ("status", number) and n}
    success = statuses.pop("success", 0)
    failures = dict(sorted(statuses.items(), key=lambda item: (-item[1], item[0])))
    tried = success + sum(failures.values())
    measured = counts["measured", number]
    reasons, everything = _reasons(counts, number), _reasons(counts)
    funnel = [
        {
            "step": step,
            "pairs": counts["funnel", number, place, "pairs"],
            "images": counts["funnel", number, place, "images"],
        }
        for place, step in enumerate(_FUNNEL)
    ]
    listed = funnel[0]["images"]
    epoch = counts["epoch", number]
    return {
        **({"image_only": True} if job.index.image_only[number] else {}),
        "private": private,
        "pairs": reasons.total(),
        "kept_pairs": reasons[""],
        "epoch_pairs": epoch,
        "share_listed": _share(reasons.total(), everything.total()),
        "share_kept": _share(reasons[""], everything[""]),
        "share_epoch": _share(epoch, _sum(counts, "epoch")),
        "attempts": {
            "listed": listed,
            "tried": tried,
            "success": success,
            "failures": failures,
            "measured": measured,
            "accounted": listed == tried == counts["images", number] and success == measured,
        },
        "reasons": _by_reason(reasons),
        "funnel": funnel,
    }


def _share(part: int, whole: int) -> float:
    return round(part / whole, 6) if whole else 0.0


def _languages(counts: Counts) -> list[dict[str, Any]]:
    rows = [
        {"language": key[1], "pairs": n, "kept": counts["language", key[1], "kept"]}
        for key, n in counts.items()
        if key[0] == "language" and key[2] == "pairs" and n
    ]
    return sorted(rows, key=lambda row: (-row["pairs"], row["language"]))


def _benchmarks(job: Job, counts: Counts) -> list[str]:
    """Benchmarks that the index was compared with, and any that a reason names."""
    compared = set(job.index.artifact.manifest["config"].get("benchmarks", {}))
    named = {r.partition(".")[2] for r in _reasons(counts) if r.startswith(("benchmark.", "benchmark_text."))}
    return sorted(compared | named)
