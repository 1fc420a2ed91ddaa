"""Computes the figures of the data report: all of `report.json` and all numbers on the page. Counts and uids only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from stages.select.config import SelectConfig
from stages.select.decision import KEPT
from stages.select.report.distributions import distributions
from stages.select.report.groups import clusters, leaks

if TYPE_CHECKING:
    from stages.select.decision import Decision

#: Statuses of images whose host was never contacted (`stages/download/outcome.py`): the name does not resolve, or the
#: address or the request is not permitted.
_NOT_ASKED = frozenset({"dns", "forbidden_address", "forbidden_scheme", "forgotten", "invalid_url"})
#: Maximum number of hosts listed, those that lost most images first.
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
    columns = _Columns(decision)
    return {
        "selection": config.selection.model_dump(mode="json"),
        "totals": _totals(columns),
        "sources": {name: _source(columns, n, name in config.private_sources) for n, name in enumerate(columns.names)},
        "hosts": _hosts(columns),
        "distributions": distributions(decision, columns.kept, columns.kept_images),
        "languages": _languages(columns),
        "duplicates": {kind: clusters(decision, f"duplicate.{kind}") for kind in ("exact", "near")},
        "benchmarks": {name: leaks(decision, name, config.private_sources) for name in _benchmarks(decision)},
    }


class _Columns:
    """Columns that several figures need, as arrays."""

    def __init__(self, decision: Decision) -> None:
        index = decision.index
        self.decision = decision
        self.names: list[str] = index.sources
        self.kept: NDArray[np.bool_] = decision.code == KEPT
        self.source = index.pairs["source"].to_numpy()
        self.image_source = index.images["source"].to_numpy()
        self.images = index.images.num_rows
        self.kept_images = np.zeros(self.images, dtype=bool)
        self.kept_images[decision.kept_images()] = True
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
        mask = np.zeros(self.images, dtype=bool)
        mask[self.decision.image_of[pairs]] = True
        return mask


def _by_reason(reasons: list[str], counts: NDArray[np.int64]) -> dict[str, int]:
    """Reason -> pairs, most frequent first."""
    nonzero = [(reason, int(n)) for reason, n in zip(reasons, counts, strict=True) if n and reason != ""]
    return dict(sorted(nonzero, key=lambda item: (-item[1], item[0])))


def _totals(columns: _Columns) -> dict[str, Any]:
    success = columns.status.value("success")
    image_only = columns.decision.image_only
    without_text = {} if image_only is None else {"kept_without_text": int((columns.kept & image_only).sum())}
    return {
        **without_text,
        "pairs": len(columns.source),
        "kept_pairs": int(columns.kept.sum()),
        "listed_images": columns.images,
        "fetched_images": int((columns.status.of == success).sum()) if success is not None else 0,
        "kept_images": int(columns.kept_images.sum()),
        "epoch_pairs": int(columns.epoch.sum()),
        "reasons": _by_reason(columns.decision.reasons, columns.reasons.sum(axis=0)),
    }


def _source(columns: _Columns, number: int, private: bool) -> dict[str, Any]:
    decision = columns.decision
    mine, my_images = columns.source == number, columns.image_source == number
    counts = np.bincount(columns.status.of[my_images & (columns.status.of >= 0)], minlength=len(columns.status.names))
    statuses = {name: int(n) for name, n in zip(columns.status.names, counts, strict=True) if n}
    success = statuses.pop("success", 0)
    failures = dict(sorted(statuses.items(), key=lambda item: (-item[1], item[0])))
    tried = success + sum(failures.values())
    measured = int((my_images & columns.measured).sum())
    listed = int(columns.images_of(mine).sum())
    pairs, kept = int(mine.sum()), int(columns.reasons[number, KEPT])
    total, epoch = int(columns.reasons[:, KEPT].sum()), int(columns.epoch.sum())
    return {
        **({"image_only": True} if decision.index.image_only[number] else {}),
        "private": private,
        "pairs": pairs,
        "kept_pairs": kept,
        "epoch_pairs": int(columns.epoch[number]),
        "share_listed": _share(pairs, len(columns.source)),
        "share_kept": _share(kept, total),
        "share_epoch": _share(int(columns.epoch[number]), epoch),
        "attempts": {
            "listed": listed,
            "tried": tried,
            "success": success,
            "failures": failures,
            "measured": measured,
            "accounted": listed == tried == int(my_images.sum()) and success == measured,
        },
        "reasons": _by_reason(decision.reasons, columns.reasons[number]),
        "funnel": _funnel(columns, mine),
    }


def _share(part: int, whole: int) -> float:
    return round(part / whole, 6) if whole else 0.0


def _funnel(columns: _Columns, mine: NDArray[np.bool_]) -> list[dict[str, Any]]:
    """Pairs and images left after each step."""
    decision = columns.decision
    step_of = np.full(len(decision.reasons), len(_STEPS), dtype=np.int64)
    for code, reason in enumerate(decision.reasons):
        step_of[code] = next((n for n, (_, heads) in enumerate(_STEPS) if reason.startswith(heads)), len(_STEPS))
    lost_at = step_of[decision.code]
    steps = []
    for number, name in enumerate(("listed", *(step for step, _ in _STEPS))):
        left = mine & (lost_at >= number)
        steps.append({"step": name, "pairs": int(left.sum()), "images": int(columns.images_of(left).sum())})
    return steps


def _hosts(columns: _Columns) -> dict[str, Any]:
    """Hosts by images lost in the download, and why; the index has none of private sources."""
    hosts = codes(columns.decision.index.images["host"])
    known = (hosts.of >= 0) & (columns.status.of >= 0)
    cells = hosts.of[known].astype(np.int64) * len(columns.status.names) + columns.status.of[known]
    shape = len(hosts.names), len(columns.status.names)
    table = np.bincount(cells, minlength=shape[0] * shape[1]).reshape(shape)
    success = columns.status.value("success")
    fetched = table[:, success] if success is not None else np.zeros(len(hosts.names), dtype=np.int64)
    tried = table.sum(axis=1)
    asked = table[:, [name not in _NOT_ASKED for name in columns.status.names]].sum(axis=1) > 0
    lost = tried - fetched
    kept = np.bincount(hosts.of[(hosts.of >= 0) & columns.kept_images], minlength=len(hosts.names))
    order = sorted(range(len(hosts.names)), key=lambda n: (-int(lost[n]), -int(tried[n]), hosts.names[n]))
    listed = []
    for n in order[:HOSTS]:
        reasons = {
            name: int(c) for name, c in zip(columns.status.names, table[n], strict=True) if c and name != "success"
        }
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
        "hosts": int(asked.sum()),
        "without_success": int((asked & (fetched == 0)).sum()),
        "not_asked": int(((tried > 0) & ~asked).sum()),
        "top": listed,
    }


def _languages(columns: _Columns) -> list[dict[str, Any]]:
    pairs = columns.decision.index.pairs
    if "language" not in pairs.column_names:
        return []
    languages = codes(pairs["language"])
    measured = pc.fill_null(pairs["measured"], False).to_numpy(zero_copy_only=False).astype(bool)
    image_only = columns.decision.image_only
    if image_only is not None:
        measured &= ~image_only
    code = np.where(languages.of >= 0, languages.of, len(languages.names))
    every = np.bincount(code[measured], minlength=len(languages.names) + 1)
    kept = np.bincount(code[columns.kept & measured], minlength=len(languages.names) + 1)
    rows = [
        {"language": name, "pairs": int(n), "kept": int(k)}
        for name, n, k in zip([*languages.names, "none"], every, kept, strict=True)
        if n
    ]
    return sorted(rows, key=lambda row: (-row["pairs"], row["language"]))


def _benchmarks(decision: Decision) -> list[str]:
    """Benchmarks that the index was compared with, and any that a reason names."""
    compared = set(decision.index.artifact.manifest["config"].get("benchmarks", {}))
    named = {r.partition(".")[2] for r in decision.reasons if r.startswith(("benchmark.", "benchmark_text."))}
    return sorted(compared | named)


@dataclass(frozen=True)
class Codes:
    """A text column as codes into its sorted distinct values, so that counting a million rows is fast."""

    names: list[str]
    of: NDArray[np.int32]
    """Per row; -1 where the row is null."""

    def value(self, name: str) -> int | None:
        """The code of a text, or None if no row has it."""
        return self.names.index(name) if name in self.names else None


def codes(column: pa.ChunkedArray) -> Codes:
    """Codes of a string or dictionary column."""
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    joined = pa.chunked_array(column.chunks, type=column.type).unify_dictionaries().combine_chunks()
    if isinstance(joined, pa.ChunkedArray):  # a column of no chunks
        joined = joined.chunk(0) if joined.num_chunks else pa.array([], column.type)
    values = [str(value) for value in joined.dictionary.to_pylist()]
    indices = pc.fill_null(joined.indices, -1).to_numpy(zero_copy_only=False).astype(np.int32)
    # Only values that occur, in alphabetical order: a dictionary's own order depends on how the file was written.
    used = np.unique(indices[indices >= 0])
    order = sorted(used.tolist(), key=lambda code: values[code])
    lookup = np.full(len(values) + 1, -1, dtype=np.int32)
    lookup[order] = np.arange(len(order), dtype=np.int32)
    return Codes([values[code] for code in order], lookup[indices])
