"""The search finds exactly what comparing all pairs finds, each pair once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.index.hamming import cut, near_between, near_within, plan


def pairs(parts) -> list[tuple[int, int]]:
    return [(int(a), int(b)) for rows in parts for a, b in zip(*rows, strict=True)]


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 1 << 30),
    words=st.sampled_from([1, 3]),
    radius=st.integers(0, 20),
    agree=st.integers(0, 2),
    count=st.integers(0, 70),
)
def test_tables_find_exactly_what_brute_force_finds(clustered, seed, words, radius, agree, count) -> None:
    hashes = clustered(np.random.default_rng(seed), count, words)
    blocks = cut(hashes, radius, agree)
    found = [tuple(sorted(pair)) for pair in pairs(near_within(blocks, blocks.tables(), radius))]
    distances = np.bitwise_count(hashes[:, None] ^ hashes[None]).sum(axis=2)
    assert sorted(found) == [(a, b) for a in range(count) for b in range(a + 1, count) if distances[a, b] <= radius]


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 1 << 30),
    words=st.sampled_from([1, 3]),
    radius=st.integers(0, 20),
    sizes=st.tuples(st.integers(0, 60), st.integers(0, 60)),
)
def test_lookups_find_exactly_what_brute_force_finds(clustered, seed, words, radius, sizes) -> None:
    everything = clustered(np.random.default_rng(seed), sum(sizes) or 1, words)
    queries, base = everything[: sizes[0]], everything[sizes[0] : sum(sizes)]
    found = pairs(near_between(queries, base, radius))
    distances = np.bitwise_count(queries[:, None] ^ base[None]).sum(axis=2)
    assert sorted(found) == [(int(a), int(b)) for a, b in zip(*np.nonzero(distances <= radius), strict=True)]


@pytest.mark.parametrize(("radius", "words"), [(0, 1), (4, 1), (8, 1), (12, 1), (18, 3)])
def test_the_planned_search_of_many_hashes_misses_nothing(clustered, radius: int, words: int) -> None:
    hashes = np.unique(clustered(np.random.default_rng(radius), 4000, words), axis=0)
    blocks = plan(hashes, radius)
    tables = blocks.tables()
    assert blocks.agree > 0  # brute force would be slower
    # Split over any number of tasks, the tables report every pair once.
    found = [pair for part in range(3) for pair in pairs(near_within(blocks, tables[part::3], radius))]
    assert len({frozenset(pair) for pair in found}) == len(found)
    expected = 0
    for row in range(len(hashes) - 1):
        expected += int((np.bitwise_count(hashes[row + 1 :] ^ hashes[row]).sum(axis=1) <= radius).sum())
    assert len(found) == expected
    across = pairs(near_between(hashes, hashes[:500], radius))
    assert len(across) == len(set(across))
    brute = sum(int((np.bitwise_count(hashes ^ row).sum(axis=1) <= radius).sum()) for row in hashes[:500])
    assert len(across) == brute
