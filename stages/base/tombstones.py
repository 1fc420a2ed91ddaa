"""Samples that were forgotten on request: the workspace's list of what no later run may bring back.

The list holds no address and no text: uids and digests only, so that it reveals nothing of what it forbids. It is
no part of any fingerprint: `pairmill forget` removes the samples from every artifact that holds them, and whatever is
made afterwards is made without them.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from stages.base.artifact import canonical_json, is_remote


def url_digest(url: str) -> str:
    """Hex sha256 of a listed URL, as the list holds it."""
    return hashlib.sha256(url.strip().encode("utf-8", "surrogatepass")).hexdigest()


def domain_digest(domain: str) -> str:
    """Hex sha256 of a lower-case domain name without a final dot."""
    return hashlib.sha256(domain.strip().rstrip(".").lower().encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True)
class Tombstones:
    """The forgotten samples, by each way of naming them."""

    pairs: frozenset[str] = field(default_factory=frozenset)
    """uids of pairs."""
    images: frozenset[str] = field(default_factory=frozenset)
    """image_uids: all pairs of these images."""
    urls: frozenset[str] = field(default_factory=frozenset)
    """:func:`url_digest` of listed URLs."""
    sha256: frozenset[str] = field(default_factory=frozenset)
    """Hex sha256 of an image's bytes, as fetched or as stored."""
    domains: frozenset[str] = field(default_factory=frozenset)
    """:func:`domain_digest` of domains; a domain stands for its subdomains too."""

    def __bool__(self) -> bool:
        return bool(self.pairs or self.images or self.urls or self.sha256 or self.domains)

    def __or__(self, other: Tombstones) -> Tombstones:
        return Tombstones(*(getattr(self, name) | getattr(other, name) for name in self.__dataclass_fields__))

    def covers_pair(self, uid: str, image_uid: str, url: str | None) -> bool:
        """Whether a pair of a source's list is forgotten, by its uid, its image or its address."""
        if uid in self.pairs or image_uid in self.images:
            return True
        return url is not None and self.covers_url(url)

    def covers_url(self, url: str) -> bool:
        """Whether a URL is forgotten, by itself or by its domain."""
        if self.urls and url_digest(url) in self.urls:
            return True
        return bool(self.domains) and _host_digests(_host(url)) & self.domains != frozenset()

    def covers_content(self, *sha256: str) -> bool:
        """Whether an image with any of these digests is forgotten."""
        return not self.sha256.isdisjoint(sha256)

    def to_json(self) -> str:
        """The content of the file."""
        return canonical_json({name: sorted(getattr(self, name)) for name in self.__dataclass_fields__})

    @staticmethod
    def load(url: str) -> Tombstones:
        """Read the workspace's file (`StageContext.tombstones`); without a file, nothing is forgotten."""
        try:
            if is_remote(url):
                import fsspec

                files, path = fsspec.core.url_to_fs(url)
                content: dict[str, Any] = json.loads(files.cat_file(path))
            else:
                with open(url, "rb") as file:
                    content = json.load(file)
        except FileNotFoundError:
            return Tombstones()
        return Tombstones(**{name: frozenset(values) for name, values in content.items()})


def _host(url: str) -> str:
    try:
        return urlsplit(url.strip()).hostname or ""
    except ValueError:  # no URL at all: other rules reject it
        return ""


@lru_cache(maxsize=65_536)
def _host_digests(host: str) -> frozenset[str]:
    """Digests of a host name and of every domain it lies in."""
    labels = host.rstrip(".").split(".")
    return frozenset(domain_digest(".".join(labels[start:])) for start in range(len(labels)))
