"""Plans which sample goes into which shard: a seeded permutation of all kept pairs, cut by size."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stages.base.artifact import Artifact, canonical_json
from stages.base.contract import Inputs, UserError
from stages.download.failed_source import failed_sources, most_frequent
from stages.shard.config import ShardConfig

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Bytes per sample, on top of its image, that the plan allows for caption, JSON, tar headers and padding.
TEXT_ALLOWANCE = 4096

_ATTEMPT = ("width", "height", "sha256", "source_sha256", "ext", "offset", "length")
_BATCH = 1 << 16
#: Most sources that a message explains.
_SOURCES = 3


def shuffled(uids: Sequence[str], seed: int) -> NDArray[np.int64]:
    """Order of `uids` (hex digits, ascending) by a hash of each with the seed: int64 [n], positions in `uids`.

    The order of two samples does not depend on the rest of the data, so dropping some pairs leaves the others in the
    same relative order. The hash is SplitMix64's finaliser (Steele et al. 2014) over the leading 64 bits.
    """
    head = np.fromiter((int(uid[:16], 16) for uid in uids), np.uint64, len(uids))
    salt = _mix(np.array([seed], np.uint64))
    return np.argsort(_mix(head ^ salt), kind="stable").astype(np.int64)


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def cut(lengths: NDArray[np.int64], max_bytes: int, max_samples: int) -> list[tuple[int, int]]:
    """Ranges [start, stop) of samples per shard; `lengths` are image bytes in sample order, int64 [n]."""
    ends = np.cumsum(lengths + TEXT_ALLOWANCE)
    ranges = []
    start = 0
    while start < len(ends):
        before = int(ends[start - 1]) if start else 0
        fitting = int(np.searchsorted(ends, before + max_bytes, side="right"))
        stop = max(start + 1, min(fitting, start + max_samples))
        ranges.append((start, stop))
        start = stop
    return ranges


def kept_pairs(verdicts: Artifact) -> pa.Table:
    """Columns `uid`, `image_uid`, `source`, `repeats` of every kept pair, sorted by `uid`."""
    with verdicts.open("verdicts.parquet") as file:
        table = pq.read_table(file, columns=["uid", "image_uid", "source", "keep", "repeats"])
    return table.filter(table.column("keep")).drop_columns(["keep"]).sort_by("uid")


def why_nothing_is_kept(inputs: Inputs) -> str:
    """One line for a user whose verdicts keep no pair: the reasons with their counts, and what to do about them."""
    (verdicts,) = inputs["verdicts"]
    with verdicts.open("verdicts.parquet") as file:
        counted = pc.value_counts(pq.read_table(file, columns=["reason"]).column("reason")).to_pylist()
    reasons = {entry["values"]: entry["counts"] for entry in counted}
    if not reasons:
        return "shard: no source lists a pair; rejects.parquet of each `ingest` artifact has what could not be read"
    failed = failed_sources(inputs["raw"])
    advice = failed[:_SOURCES]
    if len(failed) > _SOURCES:
        advice.append(f"and so for {len(failed) - _SOURCES} more sources")
    if not failed and any(reason.startswith("download.") for reason in reasons):
        advice.append("images that could not be fetched have a row in attempts-*.parquet of the download")
    if any(not reason.startswith(("download.", "forgotten")) for reason in reasons):
        advice.append("relax `selection` for what it drops; report.html of stage `select` shows every reason")
    if "forgotten" in reasons:
        advice.append("what `pairmill forget` removed stays out")
    kept = f"none of the {sum(reasons.values()):,} pairs is kept ({most_frequent(reasons)})"
    return f"shard: {kept}: {'; '.join(advice)}"


def plan_shards(inputs: Inputs, config: ShardConfig) -> list[tuple[int, int]]:
    """Range of samples of each shard. Reads verdicts and the attempts' lengths, no text."""
    (verdicts,) = inputs["verdicts"]
    kept = kept_pairs(verdicts)
    lengths = _rows_of(kept, _attempts(inputs, ("length",)), "image_uid").column("length").to_numpy()
    order = shuffled(kept.column("uid").to_pylist(), config.seed)
    return cut(lengths[order], config.max_bytes, config.max_samples)


def gather_samples(inputs: Inputs, config: ShardConfig, scratch: str) -> pa.Table:
    """All samples in order, with their text and the extent of each image in the raw shards; memory-mapped.

    Built once and kept in `scratch` for later workers, so each shard reads its own rows only. Columns: those of
    verdicts and attempts under their names, `caption`, `url`, `license`, and `raw` / `shard`: the number of the `raw`
    input and the id of the raw shard in it.
    """
    prints = {role: [a.fingerprint for a in artifacts] for role, artifacts in inputs.items()}
    key = hashlib.sha256(canonical_json([prints, config.seed]).encode()).hexdigest()[:16]
    path = Path(scratch) / f"samples-{key}.arrow"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.{os.getpid()}.part")
        table = _gather(inputs, config)
        with pa.ipc.new_file(str(partial), table.schema) as writer:
            writer.write_table(table, max_chunksize=_BATCH)
        os.replace(partial, path)  # a concurrent worker replaces it with the same bytes
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def _gather(inputs: Inputs, config: ShardConfig) -> pa.Table:
    (verdicts,) = inputs["verdicts"]
    kept = kept_pairs(verdicts)
    kept = kept.take(shuffled(kept.column("uid").to_pylist(), config.seed))
    images = _rows_of(kept, _attempts(inputs, _ATTEMPT), "image_uid")
    texts = _rows_of(kept, _pairs(inputs), "uid")
    for name in ("caption", "url", "license"):
        kept = kept.append_column(name, texts.column(name))
    for name in (*_ATTEMPT, "raw", "shard"):
        kept = kept.append_column(name, images.column(name))
    return kept


def _rows_of(kept: pa.Table, table: pa.Table, key: str) -> pa.Table:
    # The row of `table` for each row of `kept`; unlike a join it keeps the order and cannot multiply rows.
    rows = pc.index_in(kept.column(key), value_set=table.column(key))
    if rows.null_count:
        uid = kept.column("uid")[pc.index(pc.is_null(rows), True).as_py()].as_py()
        raise UserError(
            f"shard: verdicts keep pair {uid}, but its image or text is in none of the inputs; run select again"
        )
    return table.take(rows)


def _attempts(inputs: Inputs, columns: Sequence[str]) -> pa.Table:
    tables = []
    for number, raw in enumerate(inputs["raw"]):
        for name in raw.names("attempts-*.parquet"):
            with raw.open(name) as file:
                table = pq.read_table(file, columns=["image_uid", "status", *columns])
            table = table.filter(pc.equal(table.column("status"), "success")).drop_columns(["status"])
            shard = name.removeprefix("attempts-").removesuffix(".parquet")
            table = _constant(table, "raw", pa.scalar(number, pa.int32()))
            tables.append(_constant(table, "shard", pa.scalar(shard)))
    return pa.concat_tables(tables)


def _pairs(inputs: Inputs) -> pa.Table:
    columns = ["uid", "caption", "url", "license"]
    tables = []
    for pairs in inputs["pairs"]:
        for name in pairs.names("pairs-*.parquet"):
            with pairs.open(name) as file:
                tables.append(pq.read_table(file, columns=columns))
    return pa.concat_tables(tables)


def _constant(table: pa.Table, name: str, value: Any) -> pa.Table:
    return table.append_column(name, pa.repeat(value, len(table)))
