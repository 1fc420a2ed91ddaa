"""Chooses the images that the report shows and reads them out of raw shards. Private sources are never read."""

from __future__ import annotations

import base64
import io
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stages.base.artifact import Artifact
from stages.base.contract import Inputs
from stages.imaging.decode import UndecodableImage, decode_rgb
from stages.select.config import SelectConfig

if TYPE_CHECKING:
    from stages.select.decision import Decision

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


class Samples:
    """Reads images from the raw shards by offset, each image once."""

    def __init__(self, decision: Decision, config: SelectConfig, inputs: Inputs) -> None:
        index = decision.index
        self._decision = decision
        self._images = index.images
        self._inputs = inputs
        self._sources = index.sources
        self._private = [number for number, name in enumerate(index.sources) if name in config.private_sources]
        self._uids = index.images["image_uid"]
        self._pictures: dict[int, str] = {}

    def by_reason(self) -> dict[str, list[ShownImage]]:
        """Reason -> a few pairs with a fetched image, kept (reason ``""``) or dropped for it, smallest uids first."""
        decision = self._decision
        fetched = self._images["shard"].is_valid().to_numpy()
        source = decision.index.pairs["source"].to_numpy()
        public = ~np.isin(source, self._private) & fetched[decision.image_of]
        chosen: dict[str, list[int]] = {}
        for code, reason in enumerate(decision.reasons):
            rows = np.flatnonzero(public & (decision.code == code))
            _, first = np.unique(decision.image_of[rows], return_index=True)  # captions of one image: once
            if len(rows):
                chosen[reason] = rows[np.sort(first)][: _PER_REASON if reason else _KEPT].tolist()
        captions = self._captions({row for rows in chosen.values() for row in rows})
        ordered = sorted(chosen, key=lambda reason: (reason != "", reason))
        return {
            reason: [self._sample(int(decision.image_of[row]), captions.get(row, "")) for row in chosen[reason]]
            for reason in ordered
        }

    def clusters(self, listed: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """The largest clusters of copies: `survivor`, `copies` (a few) and `more` (the number that is not shown)."""
        shown = []
        for cluster in list(listed)[:_CLUSTERS]:
            rows = [self._row(uid) for uid in (cluster["survivor"], *cluster["copies"])]
            # A public copy next to a private image's uid would reveal what the private image looks like.
            hidden = any(self._number(row) in self._private for row in rows)
            samples = [self._sample(row, hidden=hidden) for row in rows[: _PER_CLUSTER + 1]]
            more = len(rows) - len(samples) + cluster.get("more", 0)
            shown.append({"survivor": samples[0], "copies": samples[1:], "more": more})
        return shown

    def leaks(self, leaked: Iterable[Mapping[str, Any]]) -> list[tuple[ShownImage, str | None]]:
        """Training images that a benchmark contains, with the name of the benchmark's image (None if private)."""
        first = list(leaked)[:_LEAKS]
        return [(self._sample(self._row(leak["image_uid"])), leak["benchmark_image"]) for leak in first]

    def _row(self, image_uid: str) -> int:
        return bisect_left(range(len(self._uids)), image_uid, key=lambda row: self._uids[row].as_py())

    def _number(self, row: int) -> int:
        return int(self._images["source"][row].as_py())

    def _sample(self, row: int, caption: str = "", hidden: bool = False) -> ShownImage:
        number, uid = self._number(row), self._uids[row].as_py()
        if hidden or number in self._private:
            return ShownImage(uid, self._sources[number], "")
        if row not in self._pictures:
            extent = [self._images[name][row].as_py() for name in ("shard", "offset", "length")]
            self._pictures[row] = picture(self._inputs["raw"][number], *extent) if None not in extent else ""
        return ShownImage(uid, self._sources[number], self._pictures[row], shortened(caption))

    def _captions(self, rows: set[int]) -> dict[int, str]:
        """Row of pairs -> caption. A file of pairs has the same number as the raw shard with its images."""
        pairs = self._decision.index.pairs
        files: dict[tuple[int, int], dict[str, int]] = defaultdict(dict)
        for row in sorted(rows):
            image = int(self._decision.image_of[row])
            file_number = (int(pairs["source"][row].as_py()), self._images["shard"][image].as_py())
            files[file_number][pairs["uid"][row].as_py()] = row
        captions: dict[int, str] = {}
        for (number, shard), row_of in sorted(files.items()):
            if number in self._private:
                continue
            with self._inputs["pairs"][number].open(f"pairs-{shard:05d}.parquet") as file:
                listed = pc.field("uid").isin(pa.array(list(row_of), pa.string()))
                table = pq.read_table(file, columns=["uid", "caption"], filters=listed)
            for uid, caption in zip(table["uid"].to_pylist(), table["caption"].to_pylist(), strict=True):
                captions[row_of[uid]] = caption
        return captions
