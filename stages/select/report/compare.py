"""Figures of the difference between two selections: verdicts pair by pair, and distributions of the kept sets.

Where both divide the same parts of the same lists into the same ranges, the files are compared one by one; otherwise
their rows are first regrouped by uid. A process holds one range or bucket of each at a time.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from stages.base.artifact import Artifact
from stages.base.exchange import Exchange, bucket_of
from stages.base.ranges import RANGES
from stages.base.uids import leading, packed
from stages.select.report.codes import codes

#: Stands for the reason where one of the two selections does not contain the pair.
ABSENT = "not listed"
KEPT_LABEL = "kept"
#: Maximum number of changes of verdict listed.
_MOVES = 60
_SHOWN = 24
_COLUMNS = ["uid", "image_uid", "source", "keep", "reason"]
#: Rows of both selections in a bucket.
_BUCKET = 2_000_000


def compare(old: Artifact, new: Artifact, private: set[str], bucket_rows: int = _BUCKET) -> dict[str, Any]:
    """Figures of the change from one `select` artifact to another.

    `totals` (pairs and kept pairs of each, newly kept, newly dropped, kept in both), `moves` (from, to, pairs; largest
    first), `sources`, `distributions` (of what is kept, where both have the same bins), and `shown`: up to 24 newly
    kept and newly dropped pairs of public sources, by uid, image_uid and source. `bucket_rows` decides how much is held
    at a time, and nothing else.
    """
    cells: Counter[tuple[str, str, str]] = Counter()
    came: list[dict[str, str]] = []
    went: list[dict[str, str]] = []
    for before, after in _joinable(old, new, bucket_rows):
        joined = _Joined(before, after)
        cells.update(joined.cells())
        came = _merged(came, joined.first(after, joined.after, joined.came, private))
        went = _merged(went, joined.first(before, joined.before, joined.went, private))
        del joined, before, after  # the next two are read beside them otherwise
        pa.default_memory_pool().release_unused()
    moves: Counter[tuple[str, str]] = Counter()
    for (_, one, other), pairs in cells.items():
        if one != other:
            moves[one, other] += pairs
    ordered = sorted(moves.items(), key=lambda move: (-move[1], move[0]))
    sources = sorted({source for source, _, _ in cells})
    return {
        "totals": {
            "pairs": [_number(cells, lambda a, b: a != ABSENT), _number(cells, lambda a, b: b != ABSENT)],
            **_changes(cells),
            "kept_in_both": _number(cells, lambda a, b: a == b == KEPT_LABEL),
        },
        "moves": [{"from": one, "to": other, "pairs": pairs} for (one, other), pairs in ordered[:_MOVES]],
        "sources": {name: _changes({key: n for key, n in cells.items() if key[0] == name}) for name in sources},
        "distributions": _distributions(old.read_json("report.json"), new.read_json("report.json")),
        "shown": {"came": _distinct(came), "went": _distinct(went)},
    }


def _number(cells: Mapping[tuple[str, str, str], int], counts: Any) -> int:
    return sum(pairs for (_, one, other), pairs in cells.items() if counts(one, other))


def _changes(cells: Mapping[tuple[str, str, str], int]) -> dict[str, Any]:
    return {
        "kept": [_number(cells, lambda a, b: a == KEPT_LABEL), _number(cells, lambda a, b: b == KEPT_LABEL)],
        "newly_kept": _number(cells, lambda a, b: a != KEPT_LABEL and b == KEPT_LABEL),
        "newly_dropped": _number(cells, lambda a, b: a == KEPT_LABEL and b != KEPT_LABEL),
    }


def _joinable(old: Artifact, new: Artifact, bucket_rows: int) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Verdicts of both, such that a pair that both list is in the same two tables."""
    files = [artifact.names("verdicts*.parquet") for artifact in (old, new)]
    if files[0] == files[1] and _parts(old) is not None and _parts(old) == _parts(new):
        for name in files[0]:
            yield _verdicts(old, name), _verdicts(new, name)
        return
    rows = sum(_rows(artifact, name) for artifact, names in zip((old, new), files, strict=True) for name in names)
    with tempfile.TemporaryDirectory(prefix="pairmill-compare-") as folder:
        halves = []
        for number, (artifact, names) in enumerate(zip((old, new), files, strict=True)):
            exchange = Exchange(f"{folder}/{number}", max(1, -(-rows // bucket_rows)))
            for task, name in enumerate(names):
                table = _verdicts(artifact, name)
                exchange.write(task, table, bucket_of(leading(packed(table["uid"])), exchange.buckets))
            halves.append(exchange)
        for bucket in range(halves[0].buckets):
            tables = [exchange.read(bucket) if files[n] else _EMPTY for n, exchange in enumerate(halves)]
            yield tables[0], tables[1]


_EMPTY = pa.schema([(name, pa.string()) for name in ("uid", "image_uid", "source", "reason")]).empty_table()


def _parts(artifact: Artifact) -> Any:
    """What the files of verdicts are about: the lists and the parts of each range; None where that is not known."""
    # A part is a number: only with the list it counts in does it say which pairs are meant.
    lists = artifact.manifest.get("inputs", {}).get("pairs")
    if lists is None or RANGES not in artifact.names():
        return None
    return lists, [entry["parts"] for entry in artifact.read_json(RANGES)]


def _rows(artifact: Artifact, name: str) -> int:
    with artifact.open(name) as file:
        return int(pq.read_metadata(file).num_rows)


def _verdicts(artifact: Artifact, name: str) -> pa.Table:
    """Columns `uid`, `image_uid`, `source`, and `reason`, which is :data:`KEPT_LABEL` for kept pairs."""
    with artifact.open(name) as file:
        table = pq.read_table(file, columns=_COLUMNS)
    reason = pc.if_else(table["keep"], pa.scalar(KEPT_LABEL), table["reason"])
    return table.drop_columns(["keep", "reason"]).append_column("reason", reason)


class _Joined:
    """Two tables of verdicts, pair by pair."""

    def __init__(self, before: pa.Table, after: pa.Table) -> None:
        uids = pa.chunked_array([*before["uid"].chunks, *after["uid"].chunks], type=pa.string()).unique()
        self.before, self.after = (pc.index_in(uids, value_set=_whole(table["uid"])) for table in (before, after))
        self._reasons = [
            codes(pc.fill_null(table["reason"].take(rows), ABSENT))
            for table, rows in ((before, self.before), (after, self.after))
        ]
        self._source = codes(pc.coalesce(after["source"].take(self.after), before["source"].take(self.before)))
        kept = [
            reasons.of == reasons.names.index(KEPT_LABEL) if KEPT_LABEL in reasons.names else np.zeros(len(uids), bool)
            for reasons in self._reasons
        ]
        self.came: NDArray[np.bool_] = kept[1] & ~kept[0]
        """Which are newly kept."""
        self.went: NDArray[np.bool_] = kept[0] & ~kept[1]
        """Which are newly dropped."""

    def cells(self) -> Counter[tuple[str, str, str]]:
        """(source, reason before, reason after) -> pairs."""
        one, other = self._reasons
        place = (self._source.of.astype(np.int64) * len(one.names) + one.of) * len(other.names) + other.of
        used, pairs = np.unique(place, return_counts=True)
        cells: Counter[tuple[str, str, str]] = Counter()
        for cell, number in zip(used.tolist(), pairs.tolist(), strict=True):
            rest, after = divmod(cell, len(other.names))
            source, before = divmod(rest, len(one.names))
            cells[self._source.names[source], one.names[before], other.names[after]] = number
        return cells

    def first(
        self, table: pa.Table, places: pa.Array, which: NDArray[np.bool_], private: set[str]
    ) -> list[dict[str, str]]:
        """The first of some pairs by uid, of public sources."""
        rows = table.take(pc.drop_null(places.filter(pa.array(which))))
        public = pc.invert(pc.is_in(rows["source"], value_set=pa.array(sorted(private), pa.string())))
        found: list[dict[str, str]] = (
            rows.filter(public).sort_by("uid").slice(0, 20 * _SHOWN).select(["uid", "image_uid", "source"]).to_pylist()
        )
        return found


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays([pa.array([], column.type), *column.chunks])


def _merged(one: list[dict[str, str]], other: list[dict[str, str]]) -> list[dict[str, str]]:
    return sorted([*one, *other], key=lambda row: row["uid"])[: 20 * _SHOWN]


def _distinct(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """The first pairs, each image once."""
    by_image: dict[str, dict[str, str]] = {}
    for row in rows:
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
