"""Counts outcomes per host of a source, for `hosts.parquet`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stages.download.attempts import FetchedImage, ListedImage
from stages.download.fetch import listed_location
from stages.download.outcome import Failure, Reason
from stages.download.url import host_of

if TYPE_CHECKING:
    import pyarrow as pa


def listed_host(image: ListedImage, private: bool) -> str:
    """The host of an image's listed URL; empty for local files, unusable URLs and private sources."""
    if private or image.path is not None:
        return ""
    try:
        return host_of(listed_location(image.url, None))
    except Failure:
        return ""


def outcome_counts(hosts: Sequence[str], outcomes: Sequence[FetchedImage | Failure | None]) -> pa.Table:
    """Columns `host`, `status`, `images`, `bytes` of one partition; `hosts` and `outcomes` have one entry per image."""
    import pyarrow as pa

    stored = [outcome if isinstance(outcome, FetchedImage) else None for outcome in outcomes]
    status = [str(o.status) if isinstance(o, Failure) else str(Reason.SUCCESS) for o in outcomes]
    sizes = pa.array([0 if s is None else s.length for s in stored], pa.int64())
    columns = {
        "host": pa.array(hosts, pa.string()),
        "status": pa.array(status, pa.string()),
        "images": pa.array([1] * len(status), pa.int64()),
        "bytes": sizes,
    }
    return _summed(pa.table(columns))


def sum_counts(files: Sequence[Path]) -> pa.Table:
    """The sum of the partitions' tables."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    return _summed(pa.concat_tables([pq.read_table(file) for file in files]))


def iter_counts(counts: pa.Table) -> Iterator[tuple[str, str, int]]:
    """Host, status and number of images of each row."""
    columns = [counts.column(name).to_pylist() for name in ("host", "status", "images")]
    return zip(*columns, strict=True)


def hosts_table(counts: pa.Table) -> pa.Table:
    """One row per host, sorted: `host`, `attempts`, `success`, `bytes`, `reasons` (a map from status to images).

    Rows without a host and forgotten images, for which no request was made, are left out.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    requested = pc.and_(pc.not_equal(counts["host"], ""), pc.not_equal(counts["status"], str(Reason.FORGOTTEN)))
    table = counts.filter(requested).combine_chunks()
    host = table["host"].to_numpy(zero_copy_only=False)
    starts = np.flatnonzero(np.r_[True, host[1:] != host[:-1]]) if len(host) else np.zeros(0, np.int64)
    good = table["status"].to_numpy(zero_copy_only=False) == str(Reason.SUCCESS)
    images, size = table["images"].to_numpy(), table["bytes"].to_numpy()

    def per_host(values: np.ndarray) -> np.ndarray:
        return np.add.reduceat(values, starts) if len(starts) else np.zeros(0, np.int64)

    failed = np.flatnonzero(~good)
    bounds = np.r_[0, np.cumsum(per_host((~good).astype(np.int64)))].astype(np.int32)
    chosen = table.take(pa.array(failed))
    reasons = pa.MapArray.from_arrays(
        pa.array(bounds), chosen["status"].combine_chunks(), chosen["images"].combine_chunks()
    )
    return pa.table(
        {
            "host": table["host"].take(pa.array(starts)).combine_chunks(),
            "attempts": per_host(images),
            "success": per_host(np.where(good, images, 0)),
            "bytes": per_host(size),
            "reasons": reasons,
        }
    )


def _summed(table: pa.Table) -> pa.Table:
    summed = table.group_by(["host", "status"]).aggregate([("images", "sum"), ("bytes", "sum")])
    renamed = summed.select(["host", "status", "images_sum", "bytes_sum"])
    return renamed.rename_columns(["host", "status", "images", "bytes"]).sort_by(
        [("host", "ascending"), ("status", "ascending")]
    )
