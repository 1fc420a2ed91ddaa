"""Rows regrouped by a key through files of a folder that all workers share: what a shuffle is in other systems.

Each task that has rows writes one file of them, grouped by bucket; whoever needs a bucket reads its slice of every
file. No process holds more than a task's rows and a bucket, and a killed task is simply repeated.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

_BATCH = 1 << 16  # rows of one record batch: text stays far below the 2 GiB that 32-bit offsets reach


class Exchange:
    """A folder through which tasks hand rows to buckets. Picklable; reading and writing need the folder alone."""

    def __init__(self, folder: str | Path, buckets: int) -> None:
        self.folder = str(folder)
        self.buckets = buckets

    def write(self, task: int, table: pa.Table, bucket: NDArray[np.integer]) -> None:
        """Leave the rows of one task. `bucket` [rows] says where each goes; rows of a bucket keep their order.

        Writing again replaces what the task left before.
        """
        order = np.argsort(bucket, kind="stable")
        starts = np.searchsorted(bucket[order], np.arange(self.buckets + 1)).astype(np.int64)
        Path(self.folder).mkdir(parents=True, exist_ok=True)
        stem = os.path.join(self.folder, f"{task:07d}")
        grouped = table.take(pa.array(order))
        with pa.ipc.new_file(f"{stem}.arrow.{os.getpid()}.part", grouped.schema) as out:
            out.write_table(grouped, max_chunksize=_BATCH)
        with open(f"{stem}.starts.{os.getpid()}.part", "wb") as file:
            np.save(file, starts)
        os.replace(f"{stem}.arrow.{os.getpid()}.part", f"{stem}.arrow")
        os.replace(f"{stem}.starts.{os.getpid()}.part", f"{stem}.npy")

    def read(self, bucket: int) -> pa.Table:
        """All rows of a bucket, in order of the tasks that wrote them; memory-mapped.

        Raises FileNotFoundError if no task has written anything, an empty table of the right schema included.
        """
        parts: list[pa.Table] = []
        for file in sorted(Path(self.folder).glob("*.npy")):
            starts = np.load(file, mmap_mode="r")
            begin, end = int(starts[bucket]), int(starts[bucket + 1])
            if begin == end and parts:
                continue
            with pa.memory_map(str(file.with_suffix(".arrow"))) as mapped:
                parts.append(pa.ipc.open_file(mapped).read_all().slice(begin, end - begin))
        if not parts:
            raise FileNotFoundError(f"{self.folder}: no task has left rows there")
        return pa.concat_tables(parts)

    def size(self, bucket: int) -> int:
        """Number of rows in a bucket."""
        total = 0
        for file in Path(self.folder).glob("*.npy"):
            starts = np.load(file, mmap_mode="r")
            total += int(starts[bucket + 1]) - int(starts[bucket])
        return total


def bucket_of(keys: NDArray[np.uint64], buckets: int) -> NDArray[np.int64]:
    """Bucket of each key by its rank among all 64-bit values, int64 [n]: buckets in order are keys in order."""
    # Exact for up to 2**32 buckets: the leading 32 bits decide.
    return ((keys >> np.uint64(32)) * np.uint64(buckets) >> np.uint64(32)).astype(np.int64)
