"""Configuration of the shard stage: size of shards, order of samples, size of images."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from stages.base.contract import FingerprintedUnless, StageConfig


class ShardConfig(StageConfig):
    """The root key `shard`."""

    max_bytes: Annotated[int, Field(ge=1 << 16, le=1 << 40)] = 256_000_000
    """Planned maximum size of a shard: its images as stored in the raw shards, plus 4 KiB per sample for caption,
    JSON and tar headers. A single larger sample gets a shard of its own."""
    max_samples: Annotated[int, Field(ge=1)] = 10_000
    """Maximum number of samples per shard."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Seeds the permutation that mixes all sources over all shards."""
    longest_side: Annotated[int, Field(ge=16)] | None = None
    """Images with a longer side are scaled down to it and stored as JPEG; null keeps every image's bytes. No image is
    compressed with loss twice: one that the download had to re-encode (EXIF orientation) is scaled down to PNG."""
    quality: Annotated[int, Field(ge=1, le=100)] = 95
    """JPEG quality of images that were scaled down, or encoded because of `one_format`."""
    one_format: Annotated[bool, FingerprintedUnless(False)] = False
    """Whether every image is stored as an RGB JPEG, for readers that expect one column and one shape of all. RGB JPEGs
    keep their bytes; all others (grey, CMYK, PNG, WebP, ...) are encoded at `quality`, transparency on white."""
