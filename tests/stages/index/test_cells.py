"""Cells find exactly what comparing all pairs finds, each pair once, however tables and rows are divided."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.base.tasks import InProcess
from stages.index import cells
from stages.index.cells import Distinct, search, search_cut
from stages.index.columns import Column, starts_of
from stages.index.hamming import near_within, shared_bits


def held(folder: str, words: np.ndarray, buckets: int) -> Distinct:
    """Distinct hashes in buckets, each number a place among rows of which some hashes have two."""
    parts = np.array_split(words, buckets)
    starts = starts_of(len(part) for part in parts)
    columns = {name: f"{folder}/{name}" for name in ("words", "places", "sizes")}
    numbers = starts_of(2 * len(part) for part in parts)
    made = Distinct(
        64 * words.shape[1],
        Column(columns["words"], starts, "uint64", words.shape[1]),
        Column(columns["places"], starts, "int64"),
        numbers,
        Column(columns["sizes"], numbers, "int32"),
    )
    for bucket, part in enumerate(parts):
        made.words.write(bucket, part)
        made.places.write(bucket, 2 * np.arange(len(part)))
        made.sizes.write(bucket, np.tile([1, 0], len(part)))
    return made


def pairs_of(found) -> list[tuple[int, int, int]]:
    rows = [np.fromfile(it.file, dtype=np.int64).reshape(-1, 3) for it in found]
    assert [len(part) for part in rows] == [it.pairs for it in found] == [it.rows for it in found]
    table = np.concatenate([np.empty((0, 3), np.int64), *rows])
    ends = np.sort(table[:, :2] // 2, axis=1)
    return sorted(zip(*ends.T.tolist(), table[:, 2].tolist(), strict=True))


def brute_force(words: np.ndarray, radius: int) -> list[tuple[int, int, int]]:
    distances = np.bitwise_count(words[:, None] ^ words[None]).sum(axis=2)
    one, other = np.nonzero(np.triu(distances <= radius, 1))
    return sorted(zip(one.tolist(), other.tolist(), distances[one, other].tolist(), strict=True))


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 1 << 30),
    words=st.sampled_from([1, 3]),
    radius=st.integers(0, 6),
    agree=st.integers(0, 2),
    leading=st.integers(0, 2),
    buckets=st.integers(1, 4),
    crowded=st.booleans(),
    passes=st.sampled_from([100, 10**9]),
)
def test_any_division_finds_each_near_pair_once(
    clustered, seed, words, radius, agree, leading, buckets, crowded, passes
) -> None:
    random = np.random.default_rng(seed)
    hashes = np.unique(clustered(random, 40, words), axis=0)
    if crowded:  # most rows share their bits but the last ones: one cell has them all
        hashes[: len(hashes) // 2] &= np.uint64(0xFFF)
        hashes = np.unique(hashes, axis=0)
    count = len(hashes)
    cell_rows = next(
        (
            rows
            for rows in (count, *range(count // 2, 0, -1))
            if len(shared_bits(64 * words, radius, agree, count, rows)) >= min(leading, agree)
        ),
        1,
    )
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(cells, "_PASSES", passes)
        patch.setattr(cells, "_FILE_PAIRS", 5)
        found = list(search_cut(InProcess(), folder, held(folder, hashes, buckets), radius, agree, 10**9, cell_rows))
        assert pairs_of(found) == brute_force(hashes, radius)
        assert not list(Path(folder).glob("cells-*"))


def test_no_cell_that_can_be_divided_is_larger_than_it_should_be(clustered, tmp_path, monkeypatch) -> None:
    random = np.random.default_rng(5)
    hashes = np.unique(clustered(random, 2500), axis=0)
    hashes[:1200] &= ~np.uint64(0xFF << 56 | 0xFF)  # equal in many blocks' first bits
    hashes = np.unique(hashes, axis=0)
    sizes: list[int] = []

    def counted(blocks, tables, radius, shared):
        sizes.append(len(blocks.words))
        assert all(len(np.unique(blocks.cell(table[: len(shared)], shared))) <= 1 for table in tables)
        return near_within(blocks, tables, radius, shared)

    monkeypatch.setattr(cells, "near_within", counted)
    monkeypatch.setattr(cells, "_PASSES", 20_000)
    found = search_cut(InProcess(), str(tmp_path), held(str(tmp_path), hashes, 3), 4, 2, 10**9, 100)
    expected = sum(
        int((np.bitwise_count(hashes[n + 1 :] ^ row).sum(axis=1) <= 4).sum()) for n, row in enumerate(hashes)
    )
    assert len(pairs_of(list(found))) == expected
    assert max(sizes) <= 400


def test_the_planned_search_is_exact_and_stops_at_too_many_pairs(clustered, tmp_path) -> None:
    hashes = np.unique(clustered(np.random.default_rng(1), 4000), axis=0)
    made = held(str(tmp_path), hashes, 2)
    found = list(search(InProcess(), str(tmp_path), made, 8, 10**9, cell_rows=500))
    expected = sum(
        int((np.bitwise_count(hashes[n + 1 :] ^ row).sum(axis=1) <= 8).sum()) for n, row in enumerate(hashes)
    )
    assert sum(it.rows for it in found) == expected > 1000
    stopped = list(search(InProcess(), str(tmp_path), made, 8, 0, cell_rows=500))
    assert all(it.pairs * 24 == Path(it.file).stat().st_size for it in stopped)
    assert sum(it.rows for it in stopped) > 0
    assert list(search(InProcess(), str(tmp_path), held(str(tmp_path), hashes[:1], 1), 8, 10**9)) == []
