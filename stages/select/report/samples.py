"""Sample images for the report, as small JPEGs in data URIs. Nothing of a private source is ever read."""

from __future__ import annotations

import base64
import io
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stages.contract import Inputs
from stages.imagehash import UNDECODABLE, decode_rgb
from stages.select.config import SelectConfig
from stages.select.verdict import Decision

_PER_REASON = 8
_CLUSTERS, _PER_CLUSTER = 12, 5
_LEAKS = 24
_SIDE = 160
_CAPTION = 140


@dataclass(frozen=True)
class Sample:
    """One image on the page; `picture` is a data URI, or empty where none may or can be shown."""

    image_uid: str
    source: str
    picture: str
    caption: str = ""


class Samples:
    """Reads pictures from the raw shards by offset, each image once."""

    def __init__(self, decision: Decision, config: SelectConfig, inputs: Inputs) -> None:
        tables = decision.tables
        self._decision = decision
        self._inputs = inputs
        self._private = [number for number, s in enumerate(tables.sources) if s in config.private_sources]
        self._sources = tables.sources
        fetched = tables.attempts.filter(pc.equal(tables.attempts["status"], "success"))
        self._attempts = fetched.sort_by("image_uid").combine_chunks()
        self._pictures: dict[str, str] = {}

    def by_reason(self) -> dict[str, list[Sample]]:
        """A few pairs kept (reason ``""``) and dropped for each reason that leaves an image, smallest uids first."""
        decision = self._decision
        pairs = decision.tables.pairs
        public = ~np.isin(pairs["source"].to_numpy(), self._private) & (decision.image_of >= 0)
        chosen: dict[str, list[int]] = {}
        for code, reason in enumerate(decision.reasons):
            rows = np.flatnonzero(public & (decision.code == code))
            _, first = np.unique(decision.image_of[rows], return_index=True)  # captions of one image: once
            if len(rows):
                chosen[reason] = rows[np.sort(first)][:_PER_REASON].tolist()
        captions = self._captions({row for rows in chosen.values() for row in rows})
        ordered = sorted(chosen, key=lambda reason: (reason != "", reason))
        return {
            reason: [
                self._sample(pairs["image_uid"][row].as_py(), captions.get(pairs["uid"][row].as_py(), ""))
                for row in chosen[reason]
            ]
            for reason in ordered
        }

    def clusters(self, listed: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """The largest clusters of copies: `survivor`, `copies` (a few samples) and `more` (how many are not shown)."""
        shown = []
        for cluster in list(listed)[:_CLUSTERS]:
            uids = [cluster["survivor"], *cluster["copies"]]
            # Next to a private image's uid, a public copy's picture would show what the private one looks like.
            hidden = any(self._number(uid) in self._private for uid in uids)
            samples = [self._sample(uid, hidden=hidden) for uid in uids[: _PER_CLUSTER + 1]]
            shown.append({"survivor": samples[0], "copies": samples[1:], "more": len(uids) - len(samples)})
        return shown

    def leaks(self, found: Iterable[Mapping[str, Any]]) -> list[tuple[Sample, str | None]]:
        """Training images that a benchmark holds, with the name of the benchmark's image (null when private)."""
        return [(self._sample(leak["image_uid"]), leak["benchmark_image"]) for leak in list(found)[:_LEAKS]]

    def _row(self, image_uid: str) -> int:
        uids = self._attempts["image_uid"]
        return bisect_left(range(len(uids)), image_uid, key=lambda place: uids[place].as_py())

    def _number(self, image_uid: str) -> int:
        return int(self._attempts["source"][self._row(image_uid)].as_py())

    def _sample(self, image_uid: str, caption: str = "", hidden: bool = False) -> Sample:
        row, number = self._row(image_uid), self._number(image_uid)
        if hidden or number in self._private:
            return Sample(image_uid, self._sources[number], "")
        if image_uid not in self._pictures:
            self._pictures[image_uid] = self._picture(row, number)
        short = caption if len(caption) <= _CAPTION else caption[: _CAPTION - 1] + "…"
        return Sample(image_uid, self._sources[number], self._pictures[image_uid], short)

    def _picture(self, row: int, number: int) -> str:
        where = self._attempts.slice(row, 1).to_pylist()[0]
        with self._inputs["raw"][number].open(where["shard"]) as shard:
            shard.seek(where["offset"])
            data = shard.read(where["length"])
        try:
            rgb = decode_rgb(data)
        except UNDECODABLE:
            return ""
        rgb.thumbnail((_SIDE, _SIDE))
        small = io.BytesIO()
        rgb.save(small, "JPEG", quality=80)
        return f"data:image/jpeg;base64,{base64.b64encode(small.getvalue()).decode()}"

    def _captions(self, rows: set[int]) -> dict[str, str]:
        pairs = self._decision.tables.pairs.take(pa.array(sorted(rows), pa.int64()))
        captions: dict[str, str] = {}
        for number, artifact in enumerate(self._inputs["pairs"]):
            uids = pairs.filter(pc.equal(pairs["source"], number))["uid"]
            if number in self._private or not len(uids):
                continue
            for name in artifact.names("pairs-*.parquet"):
                with artifact.open(name) as file:
                    wanted = pc.field("uid").isin(uids.combine_chunks())
                    table = pq.read_table(file, columns=["uid", "caption"], filters=wanted)
                captions.update(zip(table["uid"].to_pylist(), table["caption"].to_pylist(), strict=True))
        return captions
