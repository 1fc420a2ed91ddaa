"""Figures that need the lists themselves: rows that ingest rejected, and licences of the kept pairs."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stages.base.artifact import Artifact
from stages.base.contract import Inputs
from stages.base.exchange import Exchange
from stages.base.tasks import done
from stages.base.uids import packed
from stages.select.decision import KEPT, Decision
from stages.select.job import Job, Passes
from stages.select.report.hosts import buckets_of_texts, text_buckets

#: Maximum number of licences listed; the rest are counted together.
_LICENCES = 40


def rejects(inputs: Inputs, sources: list[str]) -> dict[str, dict[str, Any]]:
    """Source -> `rows` listed, `pairs`, `repeats`, `rejects`, and rejected rows by `reasons` (most frequent first)."""
    return {name: _rejects(artifact) for name, artifact in zip(sources, inputs["pairs"], strict=True)}


def _rejects(pairs: Artifact) -> dict[str, Any]:
    counts = pairs.manifest.get("counts", {})
    reasons: Counter[str] = Counter()
    for name in pairs.names("rejects.parquet"):
        with pairs.open(name) as file:
            for batch in pq.ParquetFile(file, read_dictionary=["reason"]).iter_batches(columns=["reason"]):
                reasons.update(_counted(batch.column(0)))
    ordered = dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0])))
    return {**{name: int(counts.get(name, 0)) for name in ("rows", "pairs", "repeats", "rejects")}, "reasons": ordered}


def licences(passes: Passes) -> list[dict[str, Any]]:
    """Licence -> pairs listed and kept, over the public sources, most frequent first; `none stated` where null."""
    job = passes.job
    counted = job.exchange("licences", text_buckets(job))
    done(passes.read(_offer, counted))
    names, pairs, kept = 0, 0, 0
    top: list[dict[str, Any]] = []
    for part in passes.buckets(_count, counted.buckets, counted) if passes.ranges else ():
        names, pairs, kept = names + part.names, pairs + part.pairs, kept + part.kept
        top = _first([*top, *part.top])
    passes.clear("licences")
    if names > len(top):
        many = {"pairs": pairs - sum(row["pairs"] for row in top), "kept": kept - sum(row["kept"] for row in top)}
        top.append({"licence": f"{names - len(top)} others", **many})
    return top


def _offer(decision: Decision, counted: Exchange) -> None:
    """Leave the range's pairs by licence, listed and kept."""
    listed: Counter[str] = Counter()
    kept: Counter[str] = Counter()
    kept_rows = np.flatnonzero(decision.code == KEPT)
    kept_images = decision.image_of[kept_rows]
    # A kept image is in the raw shard of the same number as its part.
    shard = pc.fill_null(decision.images["shard"], -1).to_numpy()[kept_images].astype(np.int64)
    part = (decision.image_source[kept_images].astype(np.int64) << 32) | shard
    for source, digits in decision.range.parts:
        if source in decision.job.private:
            continue
        with decision.job.inputs["pairs"][source].open(f"pairs-{digits}.parquet") as file:
            parquet = pq.ParquetFile(file)
            column = pc.fill_null(parquet.read(columns=["license"])["license"], "none stated")
            values = _counted(column)
            listed.update(values)
            mine = part == (source << 32 | int(digits))
            if len(values) == 1:  # as in most files: counting the kept pairs then needs no uids
                kept.update(dict.fromkeys(values, int(mine.sum())))
            else:
                uids = decision.pairs["uid"].combine_chunks().take(pa.array(kept_rows[mine]))
                is_kept = pc.is_in(packed(parquet.read(columns=["uid"])["uid"]), value_set=uids)
                kept.update(_counted(column.filter(is_kept)))
    columns = {
        "licence": pa.array(list(listed), pa.string()),
        "pairs": pa.array([listed[name] for name in listed], pa.int64()),
        "kept": pa.array([kept[name] for name in listed], pa.int64()),
    }
    counted.write(decision.number, pa.table(columns), buckets_of_texts(list(listed), counted.buckets))


@dataclass(frozen=True)
class _Licences:
    names: int
    pairs: int
    kept: int
    top: list[dict[str, Any]]


def _count(job: Job, bucket: int, counted: Exchange) -> _Licences:
    sums = counted.read(bucket).group_by("licence").aggregate([("pairs", "sum"), ("kept", "sum")])
    order = [("pairs_sum", "descending"), ("licence", "ascending")]
    top = sums.sort_by(order).slice(0, _LICENCES)
    rows = [{"licence": row["licence"], "pairs": row["pairs_sum"], "kept": row["kept_sum"]} for row in top.to_pylist()]
    pairs, kept = (int(pc.sum(sums[name]).as_py() or 0) for name in ("pairs_sum", "kept_sum"))
    return _Licences(sums.num_rows, pairs, kept, rows)


def _first(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: (-row["pairs"], row["licence"]))[:_LICENCES]


def _counted(column: pa.Array | pa.ChunkedArray) -> dict[str, int]:
    return {row["values"]: row["counts"] for row in pc.value_counts(column).to_pylist()}
