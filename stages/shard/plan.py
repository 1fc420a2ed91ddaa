"""Plans which sample goes into which shard: a seeded permutation of all kept pairs, cut by size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.compute as pc

from stages.base.artifact import Artifact
from stages.base.contract import Inputs
from stages.base.ranges import Range
from stages.base.tasks import tasks_for
from stages.base.verdicts import read_verdicts, verdict_ranges
from stages.download.failed_source import failed_sources, most_frequent

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Bytes per sample, on top of its image, that the plan allows for caption, JSON, tar headers and padding.
TEXT_ALLOWANCE = 4096

#: Most sources that a message explains.
_SOURCES = 3

#: The samples of a shard: bucket, first row and end in each of the buckets that it has a part of.
Places = list[tuple[int, int, int]]


def cut(buckets: Iterable[NDArray[np.int64]], max_bytes: int, max_samples: int) -> Iterator[Places]:
    """The samples of each shard. `buckets` are the image bytes of all samples in order, int64 [samples of the bucket].

    A shard is closed before the sample that would exceed a limit; a single larger sample has one of its own.
    """
    shard: Places = []
    samples = size = 0
    for bucket, lengths in enumerate(buckets):
        ends = np.cumsum(lengths + TEXT_ALLOWANCE)
        start = 0
        while start < len(ends):
            before = int(ends[start - 1]) if start else 0
            fitting = int(np.searchsorted(ends, before + max_bytes - size, side="right"))
            stop = min(fitting, start + max_samples - samples)
            if not samples:
                stop = max(stop, start + 1)
            if stop > start:
                shard.append((bucket, start, stop))
                samples += stop - start
                size += int(ends[stop - 1]) - before
            if stop < len(ends):
                yield shard
                shard, samples, size = [], 0, 0
            start = max(start, stop)
    if shard:
        yield shard


def why_nothing_is_kept(inputs: Inputs) -> str:
    """One line for a user whose verdicts keep no pair: the reasons with their counts, and what to do about them."""
    (verdicts,) = inputs["verdicts"]
    ranges = verdict_ranges(verdicts)
    reasons: Counter[str] = Counter()
    for counted in tasks_for(len(ranges)).map(_reasons, ((verdicts, each) for each in ranges)):
        reasons.update(counted)
    if not reasons:
        return "shard: no source lists a pair; rejects.parquet of each `ingest` artifact has what could not be read"
    failed = failed_sources(inputs["raw"])
    advice = failed[:_SOURCES]
    if len(failed) > _SOURCES:
        advice.append(f"and so for {len(failed) - _SOURCES} more sources")
    if not failed and any(reason.startswith("download.") for reason in reasons):
        advice.append("images that could not be fetched have a row in attempts-*.parquet of the download")
    if any(not reason.startswith(("download.", "forgotten")) for reason in reasons):
        advice.append("relax `selection` for what it drops; report.html of stage `select` shows every reason")
    if "forgotten" in reasons:
        advice.append("what `pairmill forget` removed stays out")
    kept = f"none of the {sum(reasons.values()):,} pairs is kept ({most_frequent(reasons)})"
    return f"shard: {kept}: {'; '.join(advice)}"


def _reasons(verdicts: Artifact, of: Range) -> dict[str, int]:
    counted = pc.value_counts(read_verdicts(verdicts, of, ("reason",))["reason"])
    return {entry["values"]: entry["counts"] for entry in counted.to_pylist()}
