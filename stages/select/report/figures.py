"""The figures of the data report: everything in `report.json`, and all numbers on the page. Counts and uids only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from stages.select.config import SelectConfig
from stages.select.report.columns import Codes, codes
from stages.select.report.distributions import distributions
from stages.select.report.groups import clusters, leaks

if TYPE_CHECKING:
    from stages.select.verdict import Decision

#: Code of a pair that is kept (`Decision.reasons`).
KEPT = 0
#: Hosts listed at most, those that lost most first.
HOSTS = 50
_STEPS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("fetched", ("forgotten", "download.")),
    ("rules", ("rule.", "fraction.")),
    ("benchmarks", ("benchmark.", "benchmark_text.")),
    ("duplicates", ("duplicate.",)),
    ("cap", ("mixture", "cap")),
)


def figures(decision: Decision, config: SelectConfig) -> dict[str, Any]:
    """All figures as JSON values, in an order that depends on the data alone."""
    view = _View(decision)
    return {
        "selection": config.selection.model_dump(mode="json"),
        "totals": _totals(view),
        "sources": {name: _source(view, n, name in config.private_sources) for n, name in enumerate(view.names)},
        "hosts": _hosts(view),
        "distributions": distributions(decision, view.kept, view.kept_images),
        "languages": _languages(view),
        "duplicates": {kind: clusters(decision, f"duplicate.{kind}") for kind in ("exact", "near")},
        "benchmarks": {name: leaks(decision, name, config.private_sources) for name in _benchmarks(decision)},
    }


class _View:
    """The columns that several figures need, as arrays."""

    def __init__(self, decision: Decision) -> None:
        index = decision.index
        self.decision = decision
        self.names: list[str] = index.sources
        self.kept: NDArray[np.bool_] = decision.code == KEPT
        self.source = index.pairs["source"].to_numpy()
        self.image_source = index.images["source"].to_numpy()
        self.images = index.images.num_rows
        self.kept_images = np.zeros(self.images, dtype=bool)
        self.kept_images[decision.alive()] = True
        self.status: Codes = codes(index.images["status"])
        self.measured = index.images["decoded"].is_valid().to_numpy()
        self.repeats = np.asarray(decision.repeats, dtype=np.int64)
        # Pairs by (source, reason), and pairs in an epoch by source.
        cells = self.source.astype(np.int64) * len(decision.reasons) + decision.code
        size = len(self.names) * len(decision.reasons)
        self.reasons = np.bincount(cells, minlength=size).reshape(len(self.names), -1)
        self.epoch = np.bincount(self.source, weights=self.repeats, minlength=len(self.names)).astype(np.int64)

    def images_of(self, pairs: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which images have at least one of these pairs."""
        found = np.zeros(self.images, dtype=bool)
        found[self.decision.image_of[pairs]] = True
        return found


def _by_reason(reasons: list[str], counts: NDArray[np.int64]) -> dict[str, int]:
    """Reason -> pairs, most frequent first."""
    found = [(reason, int(n)) for reason, n in zip(reasons, counts, strict=True) if n and reason != ""]
    return dict(sorted(found, key=lambda item: (-item[1], item[0])))


def _totals(view: _View) -> dict[str, Any]:
    success = view.status.value("success")
    return {
        "pairs": len(view.source),
        "kept_pairs": int(view.kept.sum()),
        "listed_images": view.images,
        "fetched_images": int((view.status.of == success).sum()) if success is not None else 0,
        "kept_images": int(view.kept_images.sum()),
        "epoch_pairs": int(view.epoch.sum()),
        "reasons": _by_reason(view.decision.reasons, view.reasons.sum(axis=0)),
    }


def _source(view: _View, number: int, private: bool) -> dict[str, Any]:
    decision = view.decision
    mine, my_images = view.source == number, view.image_source == number
    counts = np.bincount(view.status.of[my_images & (view.status.of >= 0)], minlength=len(view.status.names))
    statuses = {name: int(n) for name, n in zip(view.status.names, counts, strict=True) if n}
    success = statuses.pop("success", 0)
    failures = dict(sorted(statuses.items(), key=lambda item: (-item[1], item[0])))
    tried = success + sum(failures.values())
    measured = int((my_images & view.measured).sum())
    listed = int(view.images_of(mine).sum())
    pairs, kept = int(mine.sum()), int(view.reasons[number, KEPT])
    total, epoch = int(view.reasons[:, KEPT].sum()), int(view.epoch.sum())
    return {
        "private": private,
        "pairs": pairs,
        "kept_pairs": kept,
        "epoch_pairs": int(view.epoch[number]),
        "share_listed": _share(pairs, len(view.source)),
        "share_kept": _share(kept, total),
        "share_epoch": _share(int(view.epoch[number]), epoch),
        "attempts": {
            "listed": listed,
            "tried": tried,
            "success": success,
            "failures": failures,
            "measured": measured,
            "accounted": listed == tried == int(my_images.sum()) and success == measured,
        },
        "reasons": _by_reason(decision.reasons, view.reasons[number]),
        "funnel": _funnel(view, mine),
    }


def _share(part: int, whole: int) -> float:
    return round(part / whole, 6) if whole else 0.0


def _funnel(view: _View, mine: NDArray[np.bool_]) -> list[dict[str, Any]]:
    """Pairs and images left after each step."""
    decision = view.decision
    step_of = np.full(len(decision.reasons), len(_STEPS), dtype=np.int64)
    for code, reason in enumerate(decision.reasons):
        step_of[code] = next((n for n, (_, heads) in enumerate(_STEPS) if reason.startswith(heads)), len(_STEPS))
    lost_at = step_of[decision.code]
    steps = []
    for number, name in enumerate(("listed", *(step for step, _ in _STEPS))):
        left = mine & (lost_at >= number)
        steps.append({"step": name, "pairs": int(left.sum()), "images": int(view.images_of(left).sum())})
    return steps


def _hosts(view: _View) -> dict[str, Any]:
    """Hosts by images lost in the download, and why; the index has none of private sources."""
    hosts = codes(view.decision.index.images["host"])
    known = (hosts.of >= 0) & (view.status.of >= 0)
    cells = hosts.of[known].astype(np.int64) * len(view.status.names) + view.status.of[known]
    shape = len(hosts.names), len(view.status.names)
    table = np.bincount(cells, minlength=shape[0] * shape[1]).reshape(shape)
    success = view.status.value("success")
    fetched = table[:, success] if success is not None else np.zeros(len(hosts.names), dtype=np.int64)
    tried = table.sum(axis=1)
    lost = tried - fetched
    kept = np.bincount(hosts.of[(hosts.of >= 0) & view.kept_images], minlength=len(hosts.names))
    order = sorted(range(len(hosts.names)), key=lambda n: (-int(lost[n]), -int(tried[n]), hosts.names[n]))
    listed = []
    for n in order[:HOSTS]:
        reasons = {name: int(c) for name, c in zip(view.status.names, table[n], strict=True) if c and name != "success"}
        listed.append(
            {
                "host": hosts.names[n],
                "images": int(tried[n]),
                "success": int(fetched[n]),
                "failed": int(lost[n]),
                "kept": int(kept[n]),
                "reasons": dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0]))),
            }
        )
    return {
        "hosts": int((tried > 0).sum()),
        "without_success": int(((tried > 0) & (fetched == 0)).sum()),
        "top": listed,
    }


def _languages(view: _View) -> list[dict[str, Any]]:
    pairs = view.decision.index.pairs
    if "language" not in pairs.column_names:
        return []
    found = codes(pairs["language"])
    measured = pc.fill_null(pairs["measured"], False).to_numpy(zero_copy_only=False).astype(bool)
    place = np.where(found.of >= 0, found.of, len(found.names))
    every = np.bincount(place[measured], minlength=len(found.names) + 1)
    kept = np.bincount(place[view.kept & measured], minlength=len(found.names) + 1)
    rows = [
        {"language": name, "pairs": int(n), "kept": int(k)}
        for name, n, k in zip([*found.names, "none"], every, kept, strict=True)
        if n
    ]
    return sorted(rows, key=lambda row: (-row["pairs"], row["language"]))


def _benchmarks(decision: Decision) -> list[str]:
    """Benchmarks looked for in the index, and any that a reason names."""
    looked = set(decision.index.artifact.manifest["config"].get("benchmarks", {}))
    named = {r.partition(".")[2] for r in decision.reasons if r.startswith(("benchmark.", "benchmark_text."))}
    return sorted(looked | named)
