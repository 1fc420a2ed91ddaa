"""One shard's ids as arrays on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np


def write_ids(ids: Sequence[Sequence[int]], vocabulary: int, folder: Path, stem: str) -> None:
    """Write `<stem>.ids.npy` (all ids end to end) and `<stem>.offsets.npy` (int64, one more than captions)."""
    offsets = np.zeros(len(ids) + 1, dtype=np.int64)
    np.cumsum([len(caption) for caption in ids], out=offsets[1:])
    flat = np.fromiter((i for caption in ids for i in caption), dtype=id_type(vocabulary), count=int(offsets[-1]))
    np.save(folder / f"{stem}.ids.npy", flat)
    np.save(folder / f"{stem}.offsets.npy", offsets)


def id_type(vocabulary: int) -> type[np.unsignedinteger]:
    """The narrowest type that holds every id: uint16 up to 65,536 ids, uint32 above."""
    return np.uint16 if vocabulary <= 1 << 16 else np.uint32
