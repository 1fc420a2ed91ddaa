"""What the check of shards finds: one line each, and what one shard's check hands back."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Problem:
    """One fault, named exactly and without a sample's content."""

    file: str
    """Name of the shard, or of the index."""
    what: str
    remedy: str
    uid: str | None = None
    offset: int | None = None
    """Bytes into the shard."""

    def __str__(self) -> str:
        place = self.file
        if self.uid is not None:
            place += f": sample {self.uid}"
        if self.offset is not None:
            place += f" at offset {self.offset}" if self.uid is not None else f": at offset {self.offset}"
        return f"{place}: {self.what}; {self.remedy}"

    def to_json(self) -> dict[str, Any]:
        """All fields by name."""
        return asdict(self)


@dataclass
class ShardCheck:
    """What the check of one shard found."""

    shard: int
    samples: int = 0
    bytes: int = 0
    problems: list[Problem] = field(default_factory=list)
    uids: NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, np.uint64))
    """xxh3_64 of each sample's uid, in order: enough to find repeats over all shards."""
