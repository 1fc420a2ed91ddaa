"""Pairs of an index that were forgotten: a second check, since earlier stages leave them out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from stages.base.tombstones import Tombstones
from stages.base.uids import UID

if TYPE_CHECKING:
    from stages.select.decision import Decision


def forgotten_pairs(decision: Decision, tombstones: Tombstones) -> NDArray[np.bool_]:
    """Which pairs of a range are forgotten, by themselves, their image, its address or its content, bool [pairs].

    Addresses and digests are read from the range's parts of `pairs` and `raw` only if any tombstone names one.
    """
    uids, images = set(tombstones.pairs), set(tombstones.images)
    if tombstones.urls or tombstones.domains:
        uids.update(_by_address(decision, tombstones))
    if tombstones.sha256:
        images.update(_by_content(decision, tombstones))
    forgotten = _among(decision.pairs["uid"], uids)
    if images:
        forgotten |= _among(decision.images["image_uid"], images)[decision.image_of]
    return forgotten


def _among(column: pa.ChunkedArray, uids: set[str]) -> NDArray[np.bool_]:
    known = pa.array([bytes.fromhex(uid) for uid in sorted(uids)], UID)
    found: NDArray[np.bool_] = pc.is_in(column, value_set=known).to_numpy().astype(bool)
    return found


def _by_address(decision: Decision, tombstones: Tombstones) -> Iterator[str]:
    for source, digits in decision.range.parts:
        with decision.job.inputs["pairs"][source].open(f"pairs-{digits}.parquet") as file:
            for batch in pq.ParquetFile(file).iter_batches(columns=["uid", "url"]):
                table = pa.Table.from_batches([batch]).drop_null()
                for uid, url in zip(table["uid"].to_pylist(), table["url"].to_pylist(), strict=True):
                    if tombstones.covers_url(url):
                        yield uid


def _by_content(decision: Decision, tombstones: Tombstones) -> Iterator[str]:
    digests = pa.array(sorted(tombstones.sha256), pa.string())
    for source, digits in decision.range.parts:
        with decision.job.inputs["raw"][source].open(f"attempts-{digits}.parquet") as file:
            present = set(pq.read_schema(file).names)
            columns = [column for column in ("sha256", "source_sha256") if column in present]
            table = pq.read_table(file, columns=["image_uid", *columns])
        for column in columns:
            yield from table["image_uid"].filter(pc.is_in(table[column], value_set=digests)).to_pylist()
