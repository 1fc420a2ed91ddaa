"""Pairs of an index that were forgotten: a second check, since earlier stages leave them out."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from stages.base.contract import Inputs
from stages.base.tombstones import Tombstones
from stages.index.reader import Index


def forgotten_pairs(index: Index, inputs: Inputs, tombstones: Tombstones) -> NDArray[np.bool_]:
    """Boolean per row of the index's pairs: whether the pair, its image, its address or the content is forgotten.

    Addresses and digests are read from `pairs` and `raw` only if any tombstone names one.
    """
    uids, images = set(tombstones.pairs), set(tombstones.images)
    if tombstones.urls or tombstones.domains:
        uids.update(_by_address(inputs, tombstones))
    if tombstones.sha256:
        images.update(_by_content(inputs, tombstones))
    forgotten = pc.is_in(index.pairs["uid"], value_set=pa.array(sorted(uids), pa.string())).to_numpy()
    if images:
        image = pc.is_in(index.images["image_uid"], value_set=pa.array(sorted(images), pa.string())).to_numpy()
        forgotten = forgotten | image[index.pairs["image"].to_numpy()]
    return forgotten.astype(bool)


def _by_address(inputs: Inputs, tombstones: Tombstones) -> Iterator[str]:
    for artifact in inputs["pairs"]:
        for name in artifact.names("pairs-*.parquet"):
            with artifact.open(name) as file:
                table = pq.read_table(file, columns=["uid", "url"]).drop_null()
            for uid, url in zip(table["uid"].to_pylist(), table["url"].to_pylist(), strict=True):
                if tombstones.covers_url(url):
                    yield uid


def _by_content(inputs: Inputs, tombstones: Tombstones) -> Iterator[str]:
    digests = pa.array(sorted(tombstones.sha256), pa.string())
    for artifact in inputs["raw"]:
        for name in artifact.names("attempts-*.parquet"):
            with artifact.open(name) as file:
                present = set(pq.read_schema(file).names)
                columns = [column for column in ("sha256", "source_sha256") if column in present]
                table = pq.read_table(file, columns=["image_uid", *columns])
            for column in columns:
                yield from table["image_uid"].filter(pc.is_in(table[column], value_set=digests)).to_pylist()
