"""Figures of clusters of copies, and of training images that a benchmark contains: uids only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stages.base.exchange import Exchange
from stages.base.tasks import done
from stages.base.uids import UID, as_hex, leading, trailing
from stages.select.contamination import load_matches
from stages.select.decision import Decision
from stages.select.job import Job, Passes, scattered

#: Maximum number of clusters and leaked images listed; the verdicts have all.
LISTED = 1000
#: Maximum number of copies listed per cluster.
COPIES = 100
KINDS = ("exact", "near")
_SIZES = (2, 3, 4, 5, 10, 20, 50, 100, 1000)

#: A copy: its cluster's survivor, itself, and how many copies of the cluster the range has (on the first, 0 elsewhere).
_COPIES = pa.schema(
    [
        ("survivor", pa.int64()),  # global row
        ("survivor_uid", UID),
        ("row", pa.int64()),  # global row
        ("uid", UID),
        ("copies", pa.int64()),
    ]
)


def clusters(passes: Passes, counts: Mapping[Any, int]) -> tuple[dict[str, Any], dict[str, int]]:
    """Clusters of copies by survivor and kind, largest first: number of `images` dropped, of `groups`, their `sizes`,
    and the largest as `clusters` of `survivor`, `copies` and the number of `more` copies that are not listed; and the
    global row of each image listed.

    `counts`: pairs by ("reason", source, reason).
    """
    found: dict[str, Any] = {}
    rows: dict[str, int] = {}
    for kind in KINDS:
        reason = f"duplicate.{kind}"
        if not any(key[0] == "reason" and key[2] == reason for key in counts):
            found[kind] = {"images": 0, "groups": 0, "sizes": {}, "clusters": []}
            continue
        offers = passes.job.exchange(f"clusters-{kind}", passes.job.buckets(_most_images(passes.job)))
        done(passes.read(_offer, reason, offers))
        total = _Clusters()
        for part in passes.buckets(_gather, offers.buckets, offers):
            total += part
        passes.clear(f"clusters-{kind}")
        found[kind] = total.figures()
        rows |= {uid: row for cluster in total.largest for uid, row in cluster.images}
    return found, rows


def _most_images(job: Job) -> int:
    """An upper bound for a few copies in a hundred images; more only make larger buckets."""
    return sum(range.images for range in job.index.ranges) // 4


def _offer(decision: Decision, reason: str, offers: Exchange) -> None:
    places = np.flatnonzero(decision.image_code[decision.copies] == decision.has(reason))
    rows, survivor = decision.copies[places], decision.survivor[places]
    uids = decision.images["image_uid"].combine_chunks().take(pa.array(rows))
    order = np.lexsort((trailing(uids), leading(uids), survivor))
    _, starts, sizes = np.unique(survivor[order], return_index=True, return_counts=True)
    place = np.arange(len(order)) - np.repeat(starts, sizes)  # among those of the same survivor
    copies = np.where(place == 0, np.repeat(sizes, sizes), 0)
    listed = np.flatnonzero(place < COPIES)
    chosen = order[listed]
    uid_bytes = pa.py_buffer(np.ascontiguousarray(decision.survivor_uid[places][chosen]))
    survivor_uids = pa.FixedSizeBinaryArray.from_buffers(UID, len(chosen), [None, uid_bytes])
    columns = [
        pa.array(survivor[chosen]),
        survivor_uids,
        pa.array(rows[chosen] + decision.range.first_image),
        uids.take(pa.array(chosen)),
        pa.array(copies[listed], pa.int64()),
    ]
    table = pa.table(columns, schema=_COPIES)
    offers.write(decision.number, table, scattered(survivor[chosen], offers.buckets))


@dataclass(frozen=True)
class _Cluster:
    size: int
    images: list[tuple[str, int]]
    """uid and global row of the survivor and of the first copies."""

    def entry(self) -> dict[str, Any]:
        uids = [uid for uid, _ in self.images]
        more = self.size - len(uids) + 1
        return {"survivor": uids[0], "copies": uids[1:], **({"more": more} if more else {})}


class _Clusters:
    """The clusters of some buckets, summed up."""

    def __init__(self) -> None:
        self.images = 0
        self.groups = 0
        self.sizes: Counter[int] = Counter()
        """Place in :data:`_SIZES` -> clusters."""
        self.largest: list[_Cluster] = []

    def __iadd__(self, other: _Clusters) -> _Clusters:
        self.images, self.groups = self.images + other.images, self.groups + other.groups
        self.sizes.update(other.sizes)
        largest = sorted([*self.largest, *other.largest], key=lambda cluster: (-cluster.size, cluster.images[0][0]))
        self.largest = largest[:LISTED]
        return self

    def figures(self) -> dict[str, Any]:
        listed = [cluster.entry() for cluster in self.largest]
        return {"images": self.images, "groups": self.groups, "sizes": _sizes(self.sizes), "clusters": listed}


def _sizes(counts: Mapping[int, int]) -> dict[str, int]:
    """Images in a cluster, survivor included -> number of clusters; the last bin is open-ended."""
    names = [
        f"{low}+" if high is None else f"{low}" if high == low + 1 else f"{low}-{high - 1}"
        for low, high in zip(_SIZES, (*_SIZES[1:], None), strict=True)
    ]
    return {name: counts[place] for place, name in enumerate(names) if counts.get(place)}


def _gather(job: Job, bucket: int, offers: Exchange) -> _Clusters:
    table = offers.read(bucket).combine_chunks()
    found = _Clusters()
    if not table.num_rows:
        return found
    survivor = table["survivor"].to_numpy()
    order = np.lexsort((trailing(table["uid"]), leading(table["uid"]), survivor))
    _, starts, lengths = np.unique(survivor[order], return_index=True, return_counts=True)
    sizes = np.add.reduceat(table["copies"].to_numpy()[order], starts)
    found.images, found.groups = int(sizes.sum()), len(starts)
    bins = np.searchsorted(_SIZES, sizes + 1, side="right") - 1
    found.sizes = Counter({int(n): int(count) for n, count in zip(*np.unique(bins, return_counts=True), strict=True)})
    survivors = table["survivor_uid"].take(pa.array(order[starts]))
    largest = np.lexsort((trailing(survivors), leading(survivors), -sizes))[:LISTED]
    ends = starts[largest] + np.minimum(lengths[largest], COPIES)
    spans = list(zip(starts[largest].tolist(), ends.tolist(), strict=True))
    chosen = table.take(pa.array(np.concatenate([order[start:end] for start, end in spans])))
    heads, uids = as_hex(chosen["survivor_uid"]).to_pylist(), as_hex(chosen["uid"]).to_pylist()
    head_rows, rows = chosen["survivor"].to_pylist(), chosen["row"].to_pylist()
    place = 0
    for size, (start, end) in zip(sizes[largest].tolist(), spans, strict=True):
        mine = slice(place, place + end - start)
        images = [(heads[place], head_rows[place]), *zip(uids[mine], rows[mine], strict=True)]
        found.largest.append(_Cluster(size, images))
        place = mine.stop
    return found


def leaks(
    passes: Passes, benchmarks: Sequence[str], counts: Mapping[Any, int]
) -> tuple[dict[str, Any], dict[str, int]]:
    """Losses to each benchmark: number of images and pairs dropped, of pairs dropped for their text, and the images,
    smallest uids first; and the global row of each image listed."""
    found: dict[str, Any] = {}
    for name in benchmarks:
        pairs, texts = (
            sum(n for key, n in counts.items() if key[0] == "reason" and key[2] == reason)
            for reason in (f"benchmark.{name}", f"benchmark_text.{name}")
        )
        found[name] = {"images": 0, "pairs": pairs, "texts": texts, "found": []}
    rows: dict[str, int] = {}
    if any(leak["pairs"] for leak in found.values()):
        for part in passes.read(_leaked):
            for name, (images, listed) in part.items():
                found[name]["images"] += images
                together = [*found[name]["found"], *(leak for leak, _ in listed)]
                found[name]["found"] = sorted(together, key=lambda leak: leak["image_uid"])[:LISTED]
                rows |= {leak["image_uid"]: row for leak, row in listed}
    return found, rows


def _leaked(decision: Decision) -> dict[str, tuple[int, list[tuple[dict[str, Any], int]]]]:
    """Benchmark -> images dropped for it, and the first of them by uid, each with its global row."""
    found = {}
    uids = decision.images["image_uid"]
    matches = load_matches(decision.job.folder)
    for code, reason in enumerate(decision.reasons):
        if not reason.startswith("benchmark."):
            continue
        places = np.flatnonzero(decision.image_code[decision.leaked] == code)
        mine = uids.combine_chunks().take(pa.array(decision.leaked[places]))
        first = np.lexsort((trailing(mine), leading(mine)))[:LISTED]
        places = places[first]
        rows: NDArray[np.int64] = decision.leaked[places]
        files = matches["file"].take(pa.array(decision.match[places])).to_pylist()
        listed = [
            # The name of the benchmark's image would reveal what a private image shows.
            ({"image_uid": uid, "benchmark_image": None if number in decision.job.private else file}, row)
            for uid, number, file, row in zip(
                as_hex(mine.take(pa.array(first))).to_pylist(),
                decision.image_source[rows].tolist(),
                files,
                (rows + decision.range.first_image).tolist(),
                strict=True,
            )
        ]
        found[reason.partition(".")[2]] = len(mine), listed
    return found
