"""Configuration of the download stage: which images are accepted, and how politely they are fetched."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, SerializeAsAny, field_validator, model_validator

from stages.base.contract import FingerprintedAs, NotFingerprinted, StageConfig
from stages.ingest.config import SourceConfig

ImageFormat = Literal["jpeg", "png", "webp", "gif", "bmp", "tiff", "avif", "jpeg2000", "ico", "ppm"]


class DownloadSettings(StageConfig):
    """The root key `download`: the same for every source."""

    keep_formats: tuple[ImageFormat, ...] = ("jpeg", "png", "webp")
    """Formats that are stored, recognised by content; others end as `unsupported_format`, which names the format."""
    max_bytes: Annotated[int, Field(ge=1024, le=2**31)] = 20_000_000
    """A larger body is not read to its end: `too_large`."""
    min_bytes: Annotated[int, Field(ge=1)] = 64
    """A smaller image cannot be worth storing: `too_small`, as is an empty body; any other is `not_an_image`."""
    max_pixels: Annotated[int, Field(ge=1, le=178_000_000)] = 50_000_000
    """Width × height according to the header, checked before decoding: `too_many_pixels`. (Pillow itself refuses more
    than 178 million.)"""
    reencode_quality: Annotated[int, Field(ge=1, le=100)] = 95
    """JPEG and WebP quality if an EXIF orientation has to be applied; all other images keep their bytes."""
    hash_mismatch: Literal["drop", "keep"] = "drop"
    """How to treat an image whose bytes do not match the `sha256` or `md5` that its source lists: `drop` ends it as
    `hash_mismatch`, `keep` stores it with `hash_ok` false."""

    robots: bool = True
    """Whether robots.txt is read and obeyed (RFC 9309): `robots`, or `robots_unavailable` if it cannot be read."""
    opt_out_directives: tuple[str, ...] = ("noai", "noimageai", "noindex", "noimageindex", "noml")
    """`X-Robots-Tag` directives that forbid use: `opt_out`. An empty list ignores the header."""
    tdm_reservation: Literal["ignore", "header", "header_and_file"] = "header_and_file"
    """Where to look for a reservation of text and data mining rights (TDMRep): `opt_out`. The file is
    `/.well-known/tdmrep.json`, requested once per host."""
    user_agent_token: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")] = "pairmill"
    """Names this crawler in the User-Agent header, and in rules and directives addressed to it alone."""
    contact: Annotated[str, NotFingerprinted, Field(pattern=r"^((https?://|mailto:)[!-~]+)?$")] = ""
    """Address of a page or mailbox where a server's owner can reach the operator; part of the User-Agent header."""
    max_redirects: Annotated[int, Field(ge=0, le=50)] = 10
    """Longer chains end as `too_many_redirects`; a repeated address as `redirect_loop`."""
    allow_private_hosts: tuple[str, ...] | dict[str, tuple[str, ...]] = ()
    """Host names and networks (`10.1.0.0/16`) that may be reached although they are private, loopback or link-local:
    for all sources, or a list per source. Every other such host ends as `forbidden_address`."""

    threads: Annotated[int, NotFingerprinted, Field(ge=1, le=1024)] = 64
    """Images in flight per partition."""
    per_host: Annotated[int, NotFingerprinted, Field(ge=1, le=1024)] = 8
    """Requests in flight per host, shared among the partitions that run at a time (each may make one)."""
    per_host_rate: Annotated[float, NotFingerprinted, Field(gt=0, le=100_000)] = 20.0
    """Requests per second and host, shared likewise. A robots.txt with a Crawl-delay can only lower it. A
    server that plays the hosts of a demonstration is exempt."""
    decode_threads: Annotated[int, NotFingerprinted, Field(ge=1, le=64)] = 2
    """Images decoded at the same time; bounds memory to this many times `max_pixels` × 4 bytes."""
    timeout: Annotated[float, NotFingerprinted, Field(gt=0, le=600)] = 10.0
    """Seconds to wait for a connection, and for each read of a response."""
    total_timeout: Annotated[float, NotFingerprinted, Field(gt=0, le=3600)] = 60.0
    """Seconds for a whole response, even if it arrives steadily."""
    retries: Annotated[int, NotFingerprinted, Field(ge=0, le=20)] = 2
    """Further tries after a transient failure (timeouts, 429, 5xx, resets). Other failures are final immediately."""
    backoff: Annotated[float, NotFingerprinted, Field(ge=0, le=60)] = 0.5
    """Seconds before the first retry; doubled for each next one, with jitter."""
    max_wait: Annotated[float, NotFingerprinted, Field(ge=0, le=3600)] = 60.0
    """Maximum seconds to wait before a request, which limits backoff and a server's Crawl-delay."""
    max_retry_after: Annotated[float, NotFingerprinted, Field(ge=0, le=86_400)] = 300.0
    """The longest Retry-After that is waited for, in seconds. A host that asks for more is not asked again in this run:
    its images end as `rate_limited`, which `--retry-failed` retries."""
    min_success_rate: Annotated[float, NotFingerprinted, Field(ge=0, le=1)] = 0.3
    """If fewer than this share of a source's images can be downloaded, over `watch_after` consecutive attempts, the
    stage stops; what was fetched is kept. 0 never stops it."""
    watch_after: Annotated[int, NotFingerprinted, Field(ge=1)] = 1000
    """Number of attempts over which a success rate is measured. A host below the rate is named in a warning."""

    @field_validator("allow_private_hosts")
    @classmethod
    def _names_or_networks(cls, value: Any) -> Any:
        for entry in sum(value.values(), ()) if isinstance(value, dict) else value:
            if "/" in entry:
                try:
                    ipaddress.ip_network(entry)
                except ValueError as error:
                    raise ValueError(f"{entry!r} is neither a host name nor a network: {error}") from None
        return value


class DownloadConfig(DownloadSettings):
    """Settings and the one source this artifact belongs to."""

    name: str
    """The source's name in the run."""
    source: SerializeAsAny[SourceConfig]
    """Where its images are: over HTTP, or below `source.images`."""
    retry_pass: Annotated[int, FingerprintedAs("round"), Field(ge=0)] = 0
    """Number of retry passes (`--retry-failed`) over this source: a pass above 0 takes everything from its input
    `previous` except transient failures."""

    @model_validator(mode="before")
    @classmethod
    def _own_hosts(cls, values: Any) -> Any:
        # Hosts allowed for another source must not change this one's fingerprint.
        if isinstance(values, dict) and isinstance(values.get("allow_private_hosts"), Mapping):
            return {**values, "allow_private_hosts": values["allow_private_hosts"].get(values.get("name"), ())}
        return values

    @property
    def private_hosts(self) -> tuple[str, ...]:
        """This source's `allow_private_hosts`."""
        return self.allow_private_hosts if isinstance(self.allow_private_hosts, tuple) else ()
