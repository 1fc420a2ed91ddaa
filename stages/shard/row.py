"""A row of the index: where in which shard the parts of one sample are."""

from __future__ import annotations

from typing import NamedTuple


class Row(NamedTuple):
    """Where the parts of one sample are. Offsets and lengths are bytes in the shard; length -1: no such part."""

    uid: str
    image_uid: str
    source: str
    shard: int
    image_ext: str
    image_offset: int
    image_length: int
    text_offset: int
    text_length: int
    json_offset: int
    json_length: int
    repeats: int = 1
    """How often an epoch of training shows the sample."""
    image_xxh3: int | None = None
    """xxh3_64 of the part's bytes; None: not known, and not checked."""
    text_xxh3: int | None = None
    json_xxh3: int | None = None
