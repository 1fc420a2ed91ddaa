"""Which samples have equal keys, among more samples than memory holds."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_RECORD = np.dtype([("key", "<u8"), ("shard", "<u4"), ("position", "<u4")])
_BUCKETS = 256
#: Keys held before they go to files, 16 bytes each.
_HELD = 4_000_000

Place = tuple[int, int]
"""A shard's number, and a sample's position in it."""


class RepeatedKeys:
    """Collects the keys of shards; a context, on whose end its files are gone."""

    def __init__(self, held: int = _HELD) -> None:
        self._limit = held
        self._records: list[NDArray[np.void]] = []
        self._count = 0
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> RepeatedKeys:
        return self

    def __exit__(self, *_: object) -> None:
        if self._folder is not None:
            self._folder.cleanup()

    def add(self, shard: int, keys: NDArray[np.uint64]) -> None:
        """Add the keys of a shard's samples, uint64 [samples]; shards in any order, each once."""
        records = np.empty(len(keys), _RECORD)
        records["key"], records["shard"], records["position"] = keys, shard, np.arange(len(keys))
        self._records.append(records)
        self._count += len(keys)
        if self._count > self._limit:
            self._spill()

    def pairs(self) -> Iterator[tuple[Place, Place]]:
        """Places of equal keys, each with the next one in order of shard and position; in order of the keys."""
        if self._folder is None:
            yield from _pairs(np.concatenate([np.empty(0, _RECORD), *self._records]))
            return
        self._spill()
        for bucket in range(_BUCKETS):
            file = self._file(bucket)
            if file.exists():
                yield from _pairs(np.fromfile(file, _RECORD))

    def _spill(self) -> None:
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="pairmill-keys-")
        records = np.concatenate([np.empty(0, _RECORD), *self._records])
        self._records, self._count = [], 0
        bucket = (records["key"] >> np.uint64(56)).astype(np.int64)
        order = np.argsort(bucket, kind="stable")
        bounds = np.searchsorted(bucket[order], np.arange(_BUCKETS + 1))
        for number, (start, stop) in enumerate(pairwise(bounds.tolist())):
            if start < stop:
                with open(self._file(number), "ab") as file:
                    records[order[start:stop]].tofile(file)

    def _file(self, bucket: int) -> Path:
        assert self._folder is not None
        return Path(self._folder.name, f"{bucket:03d}")


def _pairs(records: NDArray[np.void]) -> Iterator[tuple[Place, Place]]:
    ordered = records[np.lexsort((records["position"], records["shard"], records["key"]))]
    for i in np.flatnonzero(ordered["key"][1:] == ordered["key"][:-1]).tolist():
        first, second = ordered[i], ordered[i + 1]
        yield (int(first["shard"]), int(first["position"])), (int(second["shard"]), int(second["position"]))
