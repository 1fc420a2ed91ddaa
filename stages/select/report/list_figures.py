"""Figures that need the lists themselves: rows that ingest rejected, and licences of the kept pairs."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stages.base.artifact import Artifact
from stages.base.contract import Inputs

if TYPE_CHECKING:
    from stages.select.decision import Decision

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
            column = pq.read_table(file, columns=["reason"])["reason"]
        reasons.update(_counted(column))
    ordered = dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0])))
    return {**{name: int(counts.get(name, 0)) for name in ("rows", "pairs", "repeats", "rejects")}, "reasons": ordered}


def licences(decision: Decision, inputs: Inputs, private: set[str]) -> list[dict[str, Any]]:
    """Licence -> pairs listed and kept, over the public sources, most frequent first; `none stated` where null."""
    index = decision.index
    kept_uids = index.pairs["uid"].filter(pa.array(decision.code == 0)).combine_chunks()
    kept_in = _kept_by_file(decision)
    listed: Counter[str] = Counter()
    kept: Counter[str] = Counter()
    for number, (name, artifact) in enumerate(zip(index.sources, inputs["pairs"], strict=True)):
        for file_name in artifact.names("pairs-*.parquet") if name not in private else ():
            with artifact.open(file_name) as file:
                parquet = pq.ParquetFile(file)
                column = pc.fill_null(parquet.read(columns=["license"])["license"], "none stated")
                values = _counted(column)
                listed.update(values)
                if len(values) == 1:  # as in most files: counting the kept pairs then needs no uids
                    file_number = int(file_name.removeprefix("pairs-").removesuffix(".parquet"))
                    kept.update(dict.fromkeys(values, kept_in[number, file_number]))
                else:
                    is_kept = pc.is_in(parquet.read(columns=["uid"])["uid"], value_set=kept_uids)
                    kept.update(_counted(column.filter(is_kept)))
    names = sorted(listed, key=lambda licence: (-listed[licence], licence))
    rows = [{"licence": name, "pairs": listed[name], "kept": kept[name]} for name in names[:_LICENCES]]
    rest = names[_LICENCES:]
    if rest:
        many = {"pairs": sum(listed[name] for name in rest), "kept": sum(kept[name] for name in rest)}
        rows.append({"licence": f"{len(rest)} others", **many})
    return rows


def _counted(column: pa.ChunkedArray) -> dict[str, int]:
    return {row["values"]: row["counts"] for row in pc.value_counts(column).to_pylist()}


def _kept_by_file(decision: Decision) -> Counter[tuple[int, int]]:
    """(Source, number of the pairs file) -> pairs kept; a kept image is in the raw shard of the same number."""
    images = decision.index.images
    kept = decision.image_of[decision.code == 0]
    shard = pc.fill_null(images["shard"], -1).to_numpy()[kept].astype(np.int64)
    cells, counts = np.unique((images["source"].to_numpy()[kept].astype(np.int64) << 32) | shard, return_counts=True)
    return Counter({(int(p >> 32), int(p & 0xFFFFFFFF)): int(n) for p, n in zip(cells, counts, strict=True)})
