"""Ranges: runs of consecutive parts of the sources, the unit in which everything after `signals` is worked on.

A *part* is a source's number and the digits in the names of its files (`pairs-<digits>.parquet`): all its pairs and
images, and no image of it is in another part.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

#: Name of the file that lists the ranges of an `index` or `select` artifact.
RANGES = "ranges.json"


@dataclass(frozen=True)
class Range:
    """A run of parts, and where its rows lie among those of all ranges."""

    number: int
    parts: tuple[tuple[int, str], ...]
    """(number of the source, digits of the part), in the order of the rows."""
    images: int
    pairs: int
    first_image: int
    """Images of all earlier ranges: the global row of its first image."""
    first_pair: int
    """Pairs of all earlier ranges."""


@dataclass(frozen=True)
class RangePart:
    """A part and its rows."""

    source: int
    digits: str
    images: int
    pairs: int


def bundled(parts: Iterable[RangePart], most: int) -> list[Range]:
    """The ranges of parts, which stay in their order: as many in each as have at most `most` pairs together.

    A part of more pairs is a range of its own.
    """
    bundles: list[list[RangePart]] = []
    pairs = 0
    for part in parts:
        if not bundles or pairs + part.pairs > most:
            bundles.append([])
            pairs = 0
        bundles[-1].append(part)
        pairs += part.pairs
    return from_json(
        {
            "parts": [[part.source, part.digits] for part in bundle],
            "images": sum(part.images for part in bundle),
            "pairs": sum(part.pairs for part in bundle),
        }
        for bundle in bundles
    )


def from_json(listed: Iterable[dict[str, Any]]) -> list[Range]:
    """Ranges from the content of :data:`RANGES`."""
    ranges: list[Range] = []
    first_image = first_pair = 0
    for number, entry in enumerate(listed):
        parts = tuple((int(source), str(digits)) for source, digits in entry["parts"])
        ranges.append(Range(number, parts, entry["images"], entry["pairs"], first_image, first_pair))
        first_image += entry["images"]
        first_pair += entry["pairs"]
    return ranges


def as_json(ranges: Sequence[Range]) -> list[dict[str, Any]]:
    """The content of :data:`RANGES`."""
    return [
        {"parts": [list(part) for part in range.parts], "images": range.images, "pairs": range.pairs}
        for range in ranges
    ]
