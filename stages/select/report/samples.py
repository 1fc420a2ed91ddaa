"""Chooses the images that the report shows and reads them out of raw shards. Private sources are never read."""

from __future__ import annotations

import base64
import io
from collections import defaultdict
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from stages.base.artifact import Artifact
from stages.base.uids import as_hex, leading, trailing
from stages.imaging.decode import UndecodableImage, decode_rgb
from stages.select.decision import Decision
from stages.select.job import Job

_KEPT, _PER_REASON = 24, 8
_CLUSTERS, _PER_CLUSTER = 12, 5
_LEAKS = 24
#: Pixels of a picture's longer side, characters of a caption.
_SIDE, _CAPTION = 160, 140


@dataclass(frozen=True)
class ShownImage:
    """One image on the page; `picture` is a data URI, or empty if the image must not or cannot be shown."""

    image_uid: str
    source: str
    picture: str
    caption: str = ""


def picture(raw: Artifact, shard: int, offset: int, length: int) -> str:
    """A thumbnail of one member of a raw shard, as a JPEG in a data URI; empty if it does not decode."""
    with raw.open(f"raw-{shard:05d}.tar") as tar:
        tar.seek(offset)
        data = tar.read(length)
    try:
        rgb = decode_rgb(data)
    except UndecodableImage:
        return ""
    rgb.thumbnail((_SIDE, _SIDE))
    small = io.BytesIO()
    rgb.save(small, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(small.getvalue()).decode()}"


def shortened(caption: str) -> str:
    """A caption, truncated to the space on the page."""
    return caption if len(caption) <= _CAPTION else caption[: _CAPTION - 1] + "…"


@dataclass(frozen=True, order=True)
class SampleRow:
    """A pair that the page may show."""

    uid: str
    image_uid: str
    row: int
    """Global row of its image."""


def first_samples(decision: Decision) -> dict[str, list[SampleRow]]:
    """Reason -> a few pairs of a range with a fetched image of a public source, kept (reason ``""``) or dropped for it:
    those with the smallest uids, each image once."""
    fetched = decision.images["shard"].is_valid().to_numpy()
    private = np.isin(decision.image_source, list(decision.job.private))
    shown = (fetched & ~private)[decision.image_of]
    return {
        reason: rows
        for code, reason in enumerate(decision.reasons)
        if (rows := _first(decision, np.flatnonzero(shown & (decision.code == code)), _number(reason)))
    }


def _number(reason: str) -> int:
    return _PER_REASON if reason else _KEPT


def _first(decision: Decision, rows: NDArray[np.int64], number: int) -> list[SampleRow]:
    """The first pairs by uid, each image once."""
    found: dict[int, SampleRow] = {}
    uids = decision.pairs["uid"]
    first = decision.uid_first[rows]
    for most in (8 * number, len(rows)):  # all, if an image has so many captions among them
        near = rows[first <= np.partition(first, most - 1)[most - 1]] if most < len(rows) else rows
        mine = uids.take(pa.array(near))
        order = np.lexsort((trailing(mine), leading(mine)))
        found = {}
        for place in order.tolist():
            image = int(decision.image_of[near[place]])
            if image not in found:
                uid = as_hex(mine.slice(place, 1))[0].as_py()
                image_uid = as_hex(decision.images["image_uid"].slice(image, 1))[0].as_py()
                found[image] = SampleRow(uid, image_uid, image + decision.range.first_image)
            if len(found) == number:
                return list(found.values())
    return list(found.values())


def merged_samples(
    one: Mapping[str, list[SampleRow]], other: Mapping[str, list[SampleRow]]
) -> dict[str, list[SampleRow]]:
    """The first of both by uid; no image is in two ranges."""
    reasons = {*one, *other}
    return {r: sorted([*one.get(r, ()), *other.get(r, ())])[: _number(r)] for r in reasons}


class Samples:
    """Reads images from the raw shards by offset, each image once."""

    def __init__(self, job: Job, rows: Mapping[str, int]) -> None:
        """`rows`: image_uid -> global row, of all that may be shown."""
        self._index = job.index
        self._inputs = job.inputs
        self._private = job.private
        self._rows = rows
        self._pictures: dict[int, str] = {}
        self._images = lru_cache(maxsize=16)(job.index.images)

    def by_reason(self, chosen: Mapping[str, list[SampleRow]]) -> dict[str, list[ShownImage]]:
        """Reason -> the pairs chosen for it; what is kept (reason ``""``) comes first."""
        every = [sample for samples in chosen.values() for sample in samples]
        self._load(sample.row for sample in every)
        captions = self._captions(every)
        ordered = sorted(chosen, key=lambda reason: (reason != "", reason))
        return {
            reason: [self._sample(s.image_uid, s.row, captions.get(s.uid, "")) for s in chosen[reason]]
            for reason in ordered
        }

    def clusters(self, listed: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """The largest clusters of copies: `survivor`, `copies` (a few) and `more` (the number that is not shown)."""
        shown = []
        largest = [([cluster["survivor"], *cluster["copies"]], cluster) for cluster in list(listed)[:_CLUSTERS]]
        self._load(self._rows[uid] for uids, _ in largest for uid in uids[: _PER_CLUSTER + 1])
        for uids, cluster in largest:
            # A public copy next to a private image's uid would reveal what the private image looks like.
            hidden = any(self._value(self._rows[uid], "source") in self._private for uid in uids)
            samples = [self._sample(uid, self._rows[uid], hidden=hidden) for uid in uids[: _PER_CLUSTER + 1]]
            more = len(uids) - len(samples) + cluster.get("more", 0)
            shown.append({"survivor": samples[0], "copies": samples[1:], "more": more})
        return shown

    def leaks(self, leaked: Iterable[Mapping[str, Any]]) -> list[tuple[ShownImage, str | None]]:
        """Training images that a benchmark contains, with the name of the benchmark's image (None if private)."""
        first = [(leak["image_uid"], leak["benchmark_image"]) for leak in list(leaked)[:_LEAKS]]
        self._load(self._rows[uid] for uid, _ in first)
        return [(self._sample(uid, self._rows[uid]), file) for uid, file in first]

    def _value(self, row: int, column: str) -> Any:
        """A value of an image by its global row."""
        number = int(self._index.range_of(np.array([row]))[0])
        return self._images(number)[column][row - self._index.ranges[number].first_image].as_py()

    def _sample(self, uid: str, row: int, caption: str = "", hidden: bool = False) -> ShownImage:
        number = self._value(row, "source")
        if hidden or number in self._private:
            return ShownImage(uid, self._index.sources[number], "")
        return ShownImage(uid, self._index.sources[number], self._pictures[row], shortened(caption))

    def _load(self, rows: Iterable[int]) -> None:
        """Read the pictures of public images, several at a time."""
        wanted = {}
        for row in set(rows) - set(self._pictures):
            number, *extent = (self._value(row, name) for name in ("source", "shard", "offset", "length"))
            self._pictures[row] = ""
            if number not in self._private and None not in extent:
                wanted[row] = (self._inputs["raw"][number], *extent)
        with ThreadPoolExecutor() as pool:
            self._pictures |= (
                zip(wanted, pool.map(picture, *zip(*wanted.values(), strict=True)), strict=True) if wanted else {}
            )

    def _captions(self, samples: Iterable[SampleRow]) -> dict[str, str]:
        """uid of a pair -> caption. A file of pairs has the same number as the raw shard with its images."""
        files: dict[tuple[int, int], list[str]] = defaultdict(list)
        for sample in samples:
            files[self._value(sample.row, "source"), self._value(sample.row, "shard")].append(sample.uid)
        captions: dict[str, str] = {}
        for (number, shard), uids in sorted(files.items()):
            if number in self._private:
                continue
            with self._inputs["pairs"][number].open(f"pairs-{shard:05d}.parquet") as file:
                listed = pc.field("uid").isin(pa.array(uids, pa.string()))
                table = pq.read_table(file, columns=["uid", "caption"], filters=listed)
            captions |= zip(table["uid"].to_pylist(), table["caption"].to_pylist(), strict=True)
        return captions
