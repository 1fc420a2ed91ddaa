"""The download stage's configuration: what counts as an image, and how politely it is fetched."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, SerializeAsAny

from stages.contract import How, StageConfig
from stages.ingest.config import SourceConfig

ImageFormat = Literal["jpeg", "png", "webp", "gif", "bmp", "tiff"]


class DownloadSettings(StageConfig):
    """The root key `download`: the same for every source."""

    keep_formats: tuple[ImageFormat, ...] = ("jpeg", "png", "webp")
    """Formats that are stored, recognised by content; others end as `unsupported_format`."""
    max_bytes: Annotated[int, Field(ge=1024, le=2**31)] = 20_000_000
    """A larger body is not read to its end: `too_large`."""
    min_bytes: Annotated[int, Field(ge=1)] = 64
    """A smaller body cannot be a picture worth storing: `too_small`."""
    max_pixels: Annotated[int, Field(ge=1, le=178_000_000)] = 50_000_000
    """Width × height as the header says, checked before decoding: `too_many_pixels`. (Pillow itself refuses more
    than 178 million.)"""
    opt_out_directives: tuple[str, ...] = ("noai", "noimageai", "noindex", "noimageindex")
    """`X-Robots-Tag` directives that forbid use; an empty list ignores the header (img2dataset's default set)."""
    user_agent_token: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]*$")] = "pairmill"
    """Names this crawler in the User-Agent header, and in directives addressed to it alone."""
    max_redirects: Annotated[int, Field(ge=0, le=50)] = 10
    """Longer chains end as `too_many_redirects`; a repeated address as `redirect_loop`."""
    allow_private_hosts: tuple[str, ...] = ()
    """Host names that may resolve to private, loopback or link-local addresses; every other such host ends as
    `forbidden_address`."""
    reencode_quality: Annotated[int, Field(ge=1, le=100)] = 95
    """JPEG and WebP quality where an EXIF orientation has to be applied; all other images keep their bytes."""

    threads: Annotated[int, How, Field(ge=1, le=1024)] = 32
    """Images in flight per partition."""
    per_host: Annotated[int, How, Field(ge=1, le=1024)] = 8
    """Images in flight per host and partition."""
    decode_threads: Annotated[int, How, Field(ge=1, le=64)] = 2
    """Images decoded at the same time; bounds memory to this many times `max_pixels` × 4 bytes."""
    timeout: Annotated[float, How, Field(gt=0, le=600)] = 10.0
    """Seconds to wait for a connection, and for each next piece of an answer."""
    total_timeout: Annotated[float, How, Field(gt=0, le=3600)] = 60.0
    """Seconds for a whole answer, however steadily it drips."""
    retries: Annotated[int, How, Field(ge=0, le=20)] = 2
    """Further tries after a failure that may pass (timeouts, 429, 5xx, resets). Other failures are final at once."""
    backoff: Annotated[float, How, Field(ge=0, le=60)] = 0.5
    """Seconds before the first retry; doubled for each next one, with jitter."""
    max_wait: Annotated[float, How, Field(ge=0, le=3600)] = 60.0
    """Most seconds to wait before a retry, whatever backoff or a server's Retry-After asks for."""


class DownloadConfig(DownloadSettings):
    """Settings and the one source this artifact belongs to."""

    name: str
    """The source's name in the run."""
    source: SerializeAsAny[SourceConfig]
    """Where its images are: over HTTP, or below `source.images`."""
