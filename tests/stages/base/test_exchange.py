"""Rows handed from tasks to buckets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from stages.base.exchange import Exchange, bucket_of


def test_every_row_reaches_its_bucket_in_the_order_of_the_tasks(tmp_path: Path) -> None:
    exchange = Exchange(tmp_path / "rows", 3)
    exchange.write(10, pa.table({"text": ["e", "f"]}), np.array([2, 0]))
    exchange.write(2, pa.table({"text": ["a", "b", "c", "d"]}), np.array([0, 2, 0, 2]))
    assert [exchange.read(bucket)["text"].to_pylist() for bucket in range(3)] == [["a", "c", "f"], [], ["b", "d", "e"]]
    assert [exchange.size(bucket) for bucket in range(3)] == [3, 0, 3]
    assert exchange.read(1).schema == pa.schema([("text", pa.string())])


def test_a_repeated_task_replaces_its_rows(tmp_path: Path) -> None:
    exchange = Exchange(tmp_path, 1)
    for text in ("old", "new"):
        exchange.write(0, pa.table({"text": [text]}), np.array([0]))
    assert exchange.read(0)["text"].to_pylist() == ["new"]
    assert sorted(file.suffix for file in tmp_path.iterdir()) == [".arrow", ".npy"]


def test_reading_where_nothing_was_written_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no task"):
        Exchange(tmp_path, 2).read(0)


@pytest.mark.parametrize("buckets", [1, 3, 1000])
def test_buckets_in_order_hold_keys_in_order(buckets: int) -> None:
    keys = np.sort(np.random.default_rng(1).integers(0, 2**64, 5000, dtype=np.uint64))
    keys[0], keys[-1] = 0, 2**64 - 1
    bucket = bucket_of(keys, buckets)
    assert (bucket[0], bucket[-1]) == (0, buckets - 1)
    assert (np.diff(bucket) >= 0).all()
    assert np.bincount(bucket, minlength=buckets).max() < 3 * 5000 / buckets + 20
