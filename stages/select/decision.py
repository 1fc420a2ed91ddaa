"""The decision on the pairs and images of a range as it is built up, and the tables that record it."""

from __future__ import annotations

import os
from collections import Counter
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from stages.base.uids import UID, as_hex, bytes_of, leading, trailing
from stages.select.contamination import KINDS, load_matches
from stages.select.job import Job

#: Code of a pair that is kept; its reason is the empty string.
KEPT = 0
_UID = np.dtype("V16")


class Decision:
    """Reasons per pair and per image of a range, as codes into `reasons`. Rows are those of the range's two tables."""

    def __init__(self, job: Job, number: int) -> None:
        self.job = job
        self.index = job.index
        self.config = job.config
        self.number = number
        self.range = job.index.ranges[number]
        self.images: pa.Table = job.index.images(number)
        """Table of the range's images."""
        self.pairs: pa.Table = job.index.pairs(number)
        """Table of the range's pairs."""
        self.reasons: list[str] = [""]
        """Code -> reason, of this range alone; code 0 is the empty string: kept."""
        self.code: NDArray[np.int16] = np.zeros(self.pairs.num_rows, dtype=np.int16)
        """Reason of each pair."""
        self.image_code: NDArray[np.int16] = np.zeros(self.images.num_rows, dtype=np.int16)
        """Reason that drops all pairs of an image, or 0; it may still have lost pairs to rules on captions."""
        self.copies: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        """Rows of the images that are copies of another one, ascending."""
        self.survivor: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        """Global row of the image of which each of `copies` is a copy."""
        self.survivor_uid: NDArray[np.void] = np.empty(0, dtype=_UID)
        """Its uid, 16 bytes."""
        self.leaked: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        """Rows of the images dropped for a benchmark, ascending."""
        self.match: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        """For each of `leaked` its row of :func:`stages.select.contamination.load_matches`."""
        self.text_rows: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        """Rows of the pairs dropped for their caption, ascending."""
        self.text_overlap: NDArray[np.float32] = np.empty(0, dtype=np.float32)
        """Share of the n-grams of each that occur in the benchmark."""
        self.repeats: NDArray[np.int16] = np.zeros(0, dtype=np.int16)
        """Number of times that an epoch of training shows each pair; 0 if dropped. Empty until that is decided."""

    def load(self, folder: Path) -> None:
        """Go on from what :meth:`save` has left in a folder."""
        with np.load(folder / f"{self.number:05d}.npz") as state:
            self.reasons = state["reasons"].tolist()
            for name in _STATE:
                setattr(self, name, state[name])

    def save(self, folder: Path) -> None:
        """Leave the state in a folder, at once and complete."""
        folder.mkdir(parents=True, exist_ok=True)
        arrays: dict[str, Any] = {name: getattr(self, name) for name in _STATE}
        part = folder / f"{self.number:05d}.{os.getpid()}.part"
        with open(part, "wb") as file:
            np.savez(file, reasons=np.array(self.reasons, dtype=np.str_), **arrays)
        os.replace(part, folder / f"{self.number:05d}.npz")

    @cached_property
    def image_of(self) -> NDArray[np.int32]:
        """Row of each pair's image."""
        rows: NDArray[np.int32] = self.pairs["image"].to_numpy()
        return rows

    @cached_property
    def source(self) -> NDArray[np.int16]:
        """Number of each pair's source."""
        numbers: NDArray[np.int16] = self.pairs["source"].to_numpy()
        return numbers

    @cached_property
    def image_source(self) -> NDArray[np.int16]:
        """Number of each image's source."""
        numbers: NDArray[np.int16] = self.images["source"].to_numpy()
        return numbers

    @cached_property
    def uid_first(self) -> NDArray[np.uint64]:
        """The first 64 bits of each pair's uid, uint64 [pairs]."""
        return leading(self.pairs["uid"])

    @cached_property
    def image_only(self) -> NDArray[np.bool_] | None:
        """Which pairs have no caption because their source is image-only, bool [pairs]; None if no source is."""
        if not any(self.index.image_only):
            return None
        return np.array(self.index.image_only, dtype=bool)[self.source]

    def code_of(self, reason: str) -> int:
        """The code of a reason; a new reason is appended to `reasons`."""
        if reason not in self.reasons:
            self.reasons.append(reason)
        return self.reasons.index(reason)

    def has(self, reason: str) -> int:
        """The code of a reason, or -1 if nothing has it."""
        return self.reasons.index(reason) if reason in self.reasons else -1

    def images_of(self, pairs: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which images have at least one of these pairs, bool [images]."""
        seen = np.zeros(len(self.image_code), dtype=bool)
        seen[self.image_of[pairs]] = True
        return seen

    @property
    def kept_images(self) -> NDArray[np.bool_]:
        """Which images have at least one pair that is kept so far, bool [images]."""
        return self.images_of(self.code == KEPT)

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

    def drop_copies(
        self, rows: NDArray[np.int64], survivor: NDArray[np.int64], uid: NDArray[np.void], reason: str
    ) -> None:
        """Drop images, each as the copy of the image with a global row and a uid."""
        self.drop_images(rows, reason)
        all_rows = np.concatenate([self.copies, rows])
        order = np.argsort(all_rows)
        self.copies = all_rows[order]
        self.survivor = np.concatenate([self.survivor, survivor])[order]
        self.survivor_uid = np.concatenate([self.survivor_uid, uid])[order]

    def counts(self) -> Counter[str]:
        """Reason -> number of pairs; the empty string for those kept."""
        counts = np.bincount(self.code, minlength=len(self.reasons)).tolist()
        return Counter({reason: pairs for reason, pairs in zip(self.reasons, counts, strict=True) if pairs})

    def verdicts(self) -> pa.Table:
        """A row per pair: `uid`, `image_uid`, `source`, `keep`, `reason`, `detail`, `repeats`."""
        # Place of an image's detail among them all; 0 is the empty one.
        place = np.zeros(len(self.image_code), dtype=np.int32)
        named = self.leaked[~self._private_image[self.leaked]]
        place[named] = np.arange(1, len(named) + 1)
        place[self.copies] = np.arange(len(named) + 1, len(named) + 1 + len(self.copies))
        files = load_matches(self.job.folder)["file"].take(self.match[~self._private_image[self.leaked]])
        survivors = as_hex(
            pa.FixedSizeBinaryArray.from_buffers(UID, len(self.copies), [None, pa.py_buffer(self.survivor_uid)])
        )
        details = pa.chunked_array([pa.array([""]), *files.chunks, survivors], pa.string()).combine_chunks()
        # An image's detail explains its own reason only: a pair lost to a rule on its caption has none.
        own = (self.code != KEPT) & (self.code == self.image_code[self.image_of])
        return pa.table(
            {
                "uid": as_hex(self.pairs["uid"]),
                "image_uid": as_hex(self.images["image_uid"].combine_chunks().take(pa.array(self.image_of))),
                "source": self._source_names(self.source),
                "keep": pa.array(self.code == KEPT),
                "reason": pa.array(self.reasons, pa.string()).take(pa.array(self.code)),
                "detail": details.take(pa.array(np.where(own, place[self.image_of], 0))),
                "repeats": pa.array(self.repeats),
            }
        )

    def contamination(self) -> pa.Table:
        """Pairs that were removed because they occur in a benchmark, in the order of :meth:`verdicts`.

        `uid`, `image_uid`, `source`, `benchmark`, `kind` (exact, near, crop, text), `file` (the benchmark's image, null
        for texts and private sources), `distance` (int16, bits of perceptual hash, null for texts), `overlap` (float32,
        of n-grams, null for images).
        """
        benchmark = {c: r.partition(".")[2] for c, r in enumerate(self.reasons) if r.startswith("benchmark")}
        rows = np.flatnonzero(np.isin(self.code, list(benchmark)))
        image = self.image_of[rows]
        text = np.isin(rows, self.text_rows)
        match = np.full(len(self.image_code), -1, dtype=np.int64)
        match[self.leaked] = self.match
        found = load_matches(self.job.folder).take(pa.array(match[image], mask=text))
        overlap = np.zeros(len(self.code), dtype=np.float32)
        overlap[self.text_rows] = self.text_overlap
        kind = np.where(text, len(KINDS), pc.fill_null(found["kind"], 0).to_numpy())
        hidden = pa.array(text | self._private_image[image])
        return pa.table(
            {
                "uid": as_hex(self.pairs["uid"].combine_chunks().take(pa.array(rows))),
                "image_uid": as_hex(self.images["image_uid"].combine_chunks().take(pa.array(image))),
                "source": self._source_names(self.source[rows]),
                "benchmark": pa.array([benchmark[c] for c in self.code[rows].tolist()], pa.string()),
                "kind": pa.array([*KINDS, "text"], pa.string()).take(pa.array(kind)),
                "file": pc.if_else(hidden, pa.scalar(None, pa.string()), found["file"]),
                "distance": found["distance"],
                "overlap": pa.array(overlap[rows], pa.float32(), mask=~text),
            }
        )

    @cached_property
    def _private_image(self) -> NDArray[np.bool_]:
        return np.isin(self.image_source, list(self.job.private))

    def _source_names(self, numbers: NDArray[np.int16]) -> pa.Array:
        return pa.array(self.index.sources or [""], pa.string()).take(pa.array(numbers))


#: Attributes that :meth:`Decision.save` leaves, besides the reasons.
_STATE = (
    *("code", "image_code", "repeats", "copies", "survivor", "survivor_uid"),
    *("leaked", "match", "text_rows", "text_overlap"),
)


def uid_words(uids: pa.ChunkedArray) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """The first and the second 64 bits of a column of uids, each [n]."""
    return leading(uids), trailing(uids)


def uid_values(uids: pa.Array | pa.ChunkedArray) -> NDArray[np.void]:
    """A column of uids as numpy's 16-byte values, [n]."""
    return np.ascontiguousarray(bytes_of(uids)).view(_UID).ravel()
