"""Drops images and captions that occur in a benchmark, by the index's matches and the bounds of the selection."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from stages.index.reader import Index
from stages.select.config import Contamination
from stages.select.duplicates import confirmed

if TYPE_CHECKING:
    from stages.select.decision import Decision

#: Kinds of image matches, by number.
KINDS = ("exact", "near", "crop")
_FILE = "matches.arrow"
#: What matches in a benchmark: all images of a group (kinds 0 and 2) or of a class (kind 1) with one of its images.
_MATCHES = pa.schema(
    [
        ("benchmark", pa.string()),
        ("label", pa.int64()),  # global row that leads the group or class
        ("kind", pa.int8()),  # index into KINDS
        ("distance", pa.int16()),  # bits of perceptual hash, 0 for equal pixels
        ("file", pa.string()),  # the benchmark's image
    ]
)


def save_matches(index: Index, rule: Contamination, folder: str) -> None:
    """Write what matches by a rule, which is small, where every task finds it: one row per benchmark, kind and label.

    Among several images of a benchmark the nearest is named, then the first by name. In alphabetical order of the
    benchmarks.
    """
    tables = [_MATCHES.empty_table()]
    if rule.enabled and rule.exact:
        tables.append(_match_table(index.benchmark_exact, 0))
    if rule.enabled and rule.near is not None:
        near = index.benchmark_near(rule.near.hash)
        tables.append(_match_table(near.filter(pa.array(confirmed(near, rule.near))), 1))
    if rule.enabled and rule.crops is not None:
        crops = index.benchmark_crops
        agree = crops["correlation"].to_numpy() >= np.float32(rule.crops.min_correlation)
        agree |= crops["uncovered"].to_numpy() >= np.float32(rule.crops.min_uncovered)
        tables.append(_match_table(crops.filter(pa.array(agree)), 2))
    rows = pa.concat_tables(tables).sort_by([(name, "ascending") for name in _MATCHES.names]).combine_chunks()
    same = np.ones(max(0, rows.num_rows - 1), dtype=bool)
    for name in ("benchmark", "label", "kind"):
        column = rows[name].combine_chunks()
        same &= pc.equal(column[1:], column[:-1]).to_numpy(zero_copy_only=False)
    first = np.concatenate([np.ones(min(1, rows.num_rows), dtype=bool), ~same])
    Path(folder).mkdir(parents=True, exist_ok=True)
    with pa.ipc.new_file(str(Path(folder, _FILE)), _MATCHES) as out:
        out.write_table(rows.filter(pa.array(first)).combine_chunks())


def load_matches(folder: str) -> pa.Table:
    """What :func:`save_matches` has left: `benchmark`, `label`, `kind`, `distance`, `file`; memory-mapped."""
    with pa.memory_map(str(Path(folder, _FILE))) as mapped:
        return pa.ipc.open_file(mapped).read_all()


def _match_table(table: pa.Table, kind: int) -> pa.Table:
    rows = table.num_rows
    zero = pa.array(np.zeros(rows, dtype=np.int16))
    columns = {
        "benchmark": table["benchmark"].cast(pa.string()),
        "label": table["image"],
        "kind": pa.array(np.full(rows, kind, dtype=np.int8)),
        "distance": table["distance"] if "distance" in table.column_names else zero,
        "file": table["file"],
    }
    return pa.table(columns, _MATCHES)


def drop_leaks(decision: Decision) -> None:
    """Drop what a benchmark holds: images first, then captions, by benchmark in alphabetical order."""
    rule = decision.config.selection.contamination
    matches = load_matches(decision.job.folder)
    labels = {0: "group"}
    if rule.near is not None:
        labels[1] = f"class_{rule.near.hash}"
    if rule.crops is not None:
        labels[2] = "group"
    leaked, match = [], []
    for name in pc.unique(matches["benchmark"]).to_pylist():
        rows = np.flatnonzero(decision.kept_images)
        found = _matched(decision.images, rows, matches, name, labels)
        rows, found = rows[found >= 0], found[found >= 0]
        decision.drop_images(rows, f"benchmark.{name}")
        leaked.append(rows)
        match.append(found)
    if leaked:
        rows = np.concatenate(leaked)
        order = np.argsort(rows)
        decision.leaked, decision.match = rows[order], np.concatenate(match)[order]
    if rule.enabled and rule.min_text_overlap is not None:
        _drop_texts(decision, rule.min_text_overlap)


def _matched(
    images: pa.Table, rows: NDArray[np.int64], matches: pa.Table, benchmark: str, labels: dict[int, str]
) -> NDArray[np.int64]:
    """For each of the rows of `images` its row of `matches`, or -1; one of equal pixels before a near one."""
    found = np.full(len(rows), -1, dtype=np.int64)
    mine = pc.equal(matches["benchmark"], benchmark).to_numpy().astype(bool)
    for kind, column in sorted(labels.items(), reverse=True):  # so that an exact match replaces a near one
        places = np.flatnonzero(mine & (matches["kind"].to_numpy() == kind))
        known = matches["label"].combine_chunks().take(pa.array(places))
        place = pc.index_in(images[column].combine_chunks().take(pa.array(rows)), value_set=known)
        there = np.flatnonzero(place.is_valid().to_numpy(zero_copy_only=False))
        found[there] = places[place.drop_null().to_numpy()]
    return found


def _drop_texts(decision: Decision, min_overlap: float) -> None:
    matches = decision.index.benchmark_texts(decision.number)
    matches = matches.filter(pc.greater_equal(matches["overlap"], pa.scalar(min_overlap, pa.float32())))
    names = matches["benchmark"].cast(pa.string())
    rows, overlaps = [decision.text_rows], [decision.text_overlap]
    for name in sorted(pc.unique(names).to_pylist()):
        mine = matches.filter(pc.equal(names, name))
        pairs = mine["pair"].to_numpy().astype(np.int64)
        fresh = decision.code[pairs] == 0
        rows.append(pairs[fresh])
        overlaps.append(mine["overlap"].to_numpy()[fresh])
        decision.drop_pairs(pairs[fresh], f"benchmark_text.{name}")
    order = np.argsort(np.concatenate(rows))
    decision.text_rows, decision.text_overlap = np.concatenate(rows)[order], np.concatenate(overlaps)[order]
