"""The decision on every pair and image as it is built up, and the tables that record it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stages.index.reader import Index
from stages.select.config import SelectConfig
from stages.select.contamination import KINDS

#: Code of a pair that is kept; its reason is the empty string.
KEPT = 0


@dataclass
class Decision:
    """Reasons per pair and per image, as codes into `reasons`. Rows are those of the index's two tables."""

    index: Index
    config: SelectConfig
    reasons: list[str] = field(default_factory=lambda: [""])
    """Code -> reason; code 0 is the empty string: kept."""
    image_of: NDArray[np.int32] = field(init=False)
    """Row of each pair in `index.images`."""
    code: NDArray[np.int16] = field(init=False)
    """Reason of each pair."""
    image_code: NDArray[np.int16] = field(init=False)
    """Reason that drops all pairs of an image, or 0; it may still have lost pairs to rules on captions."""
    survivor: NDArray[np.int64] = field(init=False)
    """Row of the image of which each image is a copy, or -1."""
    benchmark_file: NDArray[np.object_] = field(init=False)
    """The benchmark's image that each image matches, or the empty string."""
    benchmark_kind: NDArray[np.int8] = field(init=False)
    """Kind of that match, an index into `contamination.KINDS`; -1 for none."""
    benchmark_distance: NDArray[np.int16] = field(init=False)
    """Bits of perceptual hash by which each image differs from the benchmark's; -1 for none."""
    text_overlap: dict[int, float] = field(default_factory=dict)
    """Row of a pair dropped for its caption -> share of its n-grams that occur in the benchmark."""
    repeats: NDArray[np.int16] = field(init=False)
    """Number of times that an epoch of training shows each pair; 0 if dropped."""

    def __post_init__(self) -> None:
        pairs, images = self.index.pairs.num_rows, self.index.images.num_rows
        self.image_of = self.index.pairs["image"].to_numpy()
        self.code = np.zeros(pairs, dtype=np.int16)
        self.image_code = np.zeros(images, dtype=np.int16)
        self.survivor = np.full(images, -1, dtype=np.int64)
        self.benchmark_file = np.full(images, "", dtype=object)
        self.benchmark_kind = np.full(images, -1, dtype=np.int8)
        self.benchmark_distance = np.full(images, -1, dtype=np.int16)
        self.repeats = np.zeros(pairs, dtype=np.int16)

    def code_of(self, reason: str) -> int:
        """The code of a reason; a new reason is appended to `reasons`."""
        if reason not in self.reasons:
            self.reasons.append(reason)
        return self.reasons.index(reason)

    @cached_property
    def image_only(self) -> NDArray[np.bool_] | None:
        """Which pairs have no caption because their source is image-only, bool [pairs]; None if no source is."""
        if not any(self.index.image_only):
            return None
        return np.array(self.index.image_only, dtype=bool)[self.index.pairs["source"].to_numpy()]

    def kept_images(self) -> NDArray[np.int64]:
        """Rows of the images with at least one pair that is kept so far."""
        seen = np.zeros(len(self.image_code), dtype=bool)
        seen[self.image_of[self.code == KEPT]] = True
        return np.flatnonzero(seen)

    def drop_images(self, rows: NDArray[np.int64], reason: str) -> None:
        """Drop images, and those of their pairs that are still kept."""
        if len(rows):
            code = self.code_of(reason)
            self.image_code[rows] = code
            mine = np.zeros(len(self.image_code), dtype=bool)
            mine[rows] = True
            self.code[(self.code == KEPT) & mine[self.image_of]] = code

    def drop_pairs(self, rows: NDArray[np.int64], reason: str) -> None:
        """Drop pairs."""
        if len(rows):
            self.code[rows] = self.code_of(reason)

    def counts(self) -> Counter[str]:
        """Reason -> number of pairs; the empty string for those kept."""
        counts = np.bincount(self.code, minlength=len(self.reasons)).tolist()
        return Counter({reason: pairs for reason, pairs in zip(self.reasons, counts, strict=True) if pairs})

    def verdicts(self) -> pa.Table:
        """One row per pair, sorted by `uid`: `uid`, `image_uid`, `source`, `keep`, `reason`, `detail`, `repeats`."""
        pairs, uids = self.index.pairs, self.index.images["image_uid"]
        detail = np.where(self._private_image(), "", self.benchmark_file)
        copies = np.flatnonzero(self.survivor >= 0)
        detail[copies] = uids.take(pa.array(self.survivor[copies])).to_pylist()
        # An image's detail explains its own reason only: a pair lost to a rule on its caption has none.
        own = np.flatnonzero((self.code != KEPT) & (self.code == self.image_code[self.image_of]))
        own = own[detail[self.image_of[own]] != ""]
        row = np.full(len(self.code), 0, dtype=np.int64)
        row[own] = np.arange(1, len(own) + 1)
        explained = pa.array(["", *detail[self.image_of[own]].tolist()], pa.string())
        names = pa.array(self.index.sources or [""], pa.string())
        return pa.table(
            {
                "uid": pairs["uid"],
                "image_uid": uids.take(pa.array(self.image_of)),
                "source": names.take(pairs["source"].combine_chunks()),
                "keep": pa.array(self.code == KEPT),
                "reason": pa.array(self.reasons, pa.string()).take(pa.array(self.code)),
                "detail": explained.take(pa.array(row)),
                "repeats": pa.array(self.repeats),
            }
        )

    def contamination(self) -> pa.Table:
        """Pairs that were removed because they occur in a benchmark, sorted by `uid`.

        `uid`, `image_uid`, `source`, `benchmark`, `kind` (exact, near, text), `file` (the benchmark's image, null for
        texts and private sources), `distance` (int16, bits of perceptual hash, null for texts), `overlap` (float32, of
        n-grams, null for images).
        """
        benchmark = {c: r.partition(".")[2] for c, r in enumerate(self.reasons) if r.startswith("benchmark")}
        rows = np.flatnonzero(np.isin(self.code, list(benchmark)))
        pairs, image, private = self.index.pairs, self.image_of[rows], self._private_image()
        text = np.array([row in self.text_overlap for row in rows.tolist()], dtype=bool)
        kinds = [*KINDS, "text"]
        files = pa.array(self.benchmark_file[image], pa.string(), mask=text | private[image])
        return pa.table(
            {
                "uid": pairs["uid"].take(pa.array(rows)),
                "image_uid": self.index.images["image_uid"].take(pa.array(image)),
                "source": pa.array([self.index.sources[n] for n in pairs["source"].to_numpy()[rows]], pa.string()),
                "benchmark": pa.array([benchmark[c] for c in self.code[rows].tolist()], pa.string()),
                "kind": pa.array([kinds[k] for k in np.where(text, 2, self.benchmark_kind[image])], pa.string()),
                "file": files,
                "distance": pa.array(self.benchmark_distance[image], pa.int16(), mask=text),
                "overlap": pa.array([self.text_overlap.get(row) for row in rows.tolist()], pa.float32()),
            }
        )

    def _private_image(self) -> NDArray[np.bool_]:
        named = [n for n, source in enumerate(self.index.sources) if source in self.config.private_sources]
        return np.isin(self.index.images["source"].to_numpy(), named)
