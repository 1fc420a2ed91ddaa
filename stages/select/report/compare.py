"""Figures of the difference between two selections: verdicts pair by pair, and distributions of the kept sets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from stages.base.artifact import Artifact
from stages.select.report.figures import codes

#: Stands for the reason where one of the two selections does not contain the pair.
ABSENT = "not listed"
KEPT_LABEL = "kept"
#: Maximum number of changes of verdict listed.
_MOVES = 60
_SHOWN = 24


def compare(old: Artifact, new: Artifact, private: set[str]) -> dict[str, Any]:
    """Figures of the change from one `select` artifact to another.

    `totals` (pairs and kept pairs of each, newly kept, newly dropped, kept in both), `moves` (from, to, pairs; largest
    first), `sources`, `distributions` (of what is kept, where both have the same bins), and `shown`: up to 24 newly
    kept and newly dropped pairs of public sources, by uid, image_uid and source.
    """
    before, after = _verdicts(old), _verdicts(new)
    uids = pa.chunked_array([*before["uid"].chunks, *after["uid"].chunks], type=pa.string()).unique()
    at = [pc.index_in(uids, value_set=table["uid"].combine_chunks()) for table in (before, after)]
    reasons = [codes(_take(table["reason"], rows)) for table, rows in zip((before, after), at, strict=True)]
    names = sorted({*reasons[0].names, *reasons[1].names})
    first, second = (np.array([names.index(n) for n in c.names], dtype=np.int64)[c.of] for c in reasons)
    cells = np.bincount(first * len(names) + second, minlength=len(names) ** 2)
    changed = [cell for cell in np.flatnonzero(cells).tolist() if cell // len(names) != cell % len(names)]
    changed.sort(key=lambda cell: (-int(cells[cell]), cell))
    source = codes(pc.coalesce(_take(after["source"], at[1], None), _take(before["source"], at[0], None)))
    kept = names.index(KEPT_LABEL) if KEPT_LABEL in names else -1
    kept_before, kept_after = first == kept, second == kept
    came, went = kept_after & ~kept_before, kept_before & ~kept_after
    return {
        "totals": {
            "pairs": [before.num_rows, after.num_rows],
            "kept": [int(kept_before.sum()), int(kept_after.sum())],
            "newly_kept": int(came.sum()),
            "newly_dropped": int(went.sum()),
            "kept_in_both": int((kept_before & kept_after).sum()),
        },
        "moves": [
            {"from": names[cell // len(names)], "to": names[cell % len(names)], "pairs": int(cells[cell])}
            for cell in changed[:_MOVES]
        ],
        "sources": {
            name: {
                "kept": [int((kept_before & mine).sum()), int((kept_after & mine).sum())],
                "newly_kept": int((came & mine).sum()),
                "newly_dropped": int((went & mine).sum()),
            }
            for number, name in enumerate(source.names)
            for mine in [source.of == number]
        },
        "distributions": _distributions(old.read_json("report.json"), new.read_json("report.json")),
        "shown": {
            "came": _first(after, at[1], came, private),
            "went": _first(before, at[0], went, private),
        },
    }


def _verdicts(artifact: Artifact) -> pa.Table:
    """Columns `uid`, `image_uid`, `source`, and `reason`, which is :data:`KEPT_LABEL` for kept pairs."""
    with artifact.open("verdicts.parquet") as file:
        table = pq.read_table(file, columns=["uid", "image_uid", "source", "keep", "reason"])
    reason = pc.if_else(table["keep"], pa.scalar(KEPT_LABEL), table["reason"])
    return table.drop_columns(["keep", "reason"]).append_column("reason", reason)


def _take(column: pa.ChunkedArray, rows: pa.Array, absent: str | None = ABSENT) -> pa.ChunkedArray:
    """A column's values by row, `absent` where the row is null."""
    values = column.take(rows)
    return values if absent is None else pc.fill_null(values, absent)


def _first(table: pa.Table, places: pa.Array, which: NDArray[np.bool_], private: set[str]) -> list[dict[str, str]]:
    """The first pairs by uid of public sources, each image once."""
    rows = table.take(pc.drop_null(places.filter(pa.array(which))))
    public = pc.invert(pc.is_in(rows["source"], value_set=pa.array(sorted(private), pa.string())))
    rows = rows.filter(public).sort_by("uid").slice(0, 20 * _SHOWN)
    by_image: dict[str, dict[str, str]] = {}
    for row in rows.select(["uid", "image_uid", "source"]).to_pylist():
        by_image.setdefault(row["image_uid"], row)
    return list(by_image.values())[:_SHOWN]


def _distributions(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Histograms of what each selection keeps, for signals with the same bins in both."""
    before, after = old["distributions"], new["distributions"]
    return {
        name: {"edges": h["edges"], "before": before[name]["kept"], "after": h["kept"]}
        for name, h in after.items()
        if name in before and before[name]["edges"] == h["edges"]
    }
