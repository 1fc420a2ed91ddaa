"""Identity of pairs and images, and the schema of the table of pairs that every source fills.

A row of an image-only source (`captions: none`) is a pair without a text: its caption is empty. Ingest rejects every
other pair with a blank caption, so an empty one says so wherever captions are read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import xxhash

if TYPE_CHECKING:
    import pyarrow as pa

    from stages.base.artifact import Artifact

_SEPARATOR = b"\x1f"  # ASCII unit separator: cannot occur in a url, so ("a", "bc") and ("ab", "c") differ


def _digest(*parts: str) -> str:
    return xxhash.xxh3_128_hexdigest(_SEPARATOR.join(part.encode("utf-8", "surrogatepass") for part in parts))


def pair_uid(source: str, location: str, caption: str) -> str:
    """Identity of an image-text pair: 32 hex digits of xxh3_128 over (source, url or path, caption)."""
    return _digest(source, location, caption)


def image_uid(source: str, location: str) -> str:
    """Identity of an image as listed: 32 hex digits of xxh3_128 over (source, url or path).

    Five captions of one photograph are five pairs (five `pair_uid`) of one image, which is fetched once.
    """
    return _digest(source, location)


def is_image_only(pairs: Artifact) -> bool:
    """Whether an `ingest` artifact is of an image-only source: all its captions are empty."""
    return bool(pairs.manifest["config"].get("source", {}).get("captions") == "none")


def pairs_schema() -> pa.Schema:
    """Arrow schema of the `ingest` artifact's `pairs-*.parquet`, the same for every source.

    ``url`` is null for local files and ``path`` for remote ones. ``caption`` is empty in an image-only source. ``meta``
    is a JSON object with the source's own columns, untouched.
    """
    import pyarrow as pa

    return pa.schema(
        [
            pa.field("uid", pa.string(), nullable=False),
            pa.field("image_uid", pa.string(), nullable=False),
            pa.field("source", pa.string(), nullable=False),
            pa.field("url", pa.string()),
            pa.field("path", pa.string()),
            pa.field("caption", pa.string(), nullable=False),
            pa.field("license", pa.string()),
            pa.field("meta", pa.string(), nullable=False),
        ]
    )
