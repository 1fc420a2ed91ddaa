"""The quick check before training: is every shard present, and as long as it must be? No shard is read."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from stages.shard.reader import ShardReader

_THREADS = 16


@dataclass(frozen=True)
class UnreadableShard:
    """A shard that is missing or too short."""

    shard: int
    """Its number."""
    name: str
    samples: range
    """Numbers of its samples; those before the end of a short shard can still be read."""
    what: str
    """`missing`, or `too short: ...`."""

    def __str__(self) -> str:
        return f"{self.name}: {self.what} ({len(self.samples)} samples)"


def missing_or_short(reader: ShardReader) -> list[UnreadableShard]:
    """Shards that are missing or end before their last sample does, by number.

    Requests sizes only: microseconds per shard on a local disk, one request each (16 at a time) to an object store.
    Raises OSError if a store cannot be reached.
    """
    with ThreadPoolExecutor(_THREADS) as threads:
        sizes = list(threads.map(lambda name: size_of(reader, name), reader.shards))
    faults = []
    for number, (name, size) in enumerate(zip(reader.shards, sizes, strict=True)):
        needed = bytes_needed(reader, number)
        if size is None:
            faults.append(UnreadableShard(number, name, reader.of_shard(number), "missing"))
        elif size < needed:
            what = f"too short: {size} bytes of {needed}"
            faults.append(UnreadableShard(number, name, reader.of_shard(number), what))
    return faults


def size_of(reader: ShardReader, name: str) -> int | None:
    """Size of a shard in bytes; None if it is missing."""
    try:
        return reader.files.size(name)
    except FileNotFoundError:
        return None


def bytes_needed(reader: ShardReader, shard: int) -> int:
    """Minimum size of a shard in bytes: as listed in `dataset.json`, or else up to its last part."""
    if reader.indexed:
        listed = reader.dataset["shards"][shard].get("bytes")
        if isinstance(listed, int):
            return listed
    samples = reader.of_shard(shard)
    if not samples:
        return 0
    last = reader.index[samples[-1]]
    parts = ("image", "text", "json")
    return max(getattr(last, f"{part}_offset") + max(0, getattr(last, f"{part}_length")) for part in parts)
