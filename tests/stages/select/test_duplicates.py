"""The index finds exactly what comparing all pairs finds; survivors do not depend on the order of rows."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.select.config import Near
from stages.select.duplicates import NONE, best_first, exact_copies, near_copies
from stages.select.hamming import near_pairs
from stages.select.likeness import confirmed, relative_difference


def clustered(random: np.random.Generator, count: int, words: int) -> np.ndarray:
    """Hashes of which many are a few flipped bits away from one another."""
    seeds = random.integers(0, 1 << 63, (max(1, count // 6), words), dtype=np.uint64)
    hashes = seeds[random.integers(0, len(seeds), count)]
    for _ in range(6):
        flip = np.uint64(1) << random.integers(0, 64, (count, words)).astype(np.uint64)
        hashes = hashes ^ np.where(random.random((count, words)) < 0.4, flip, np.uint64(0))
    return hashes


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 1 << 30),
    words=st.sampled_from([1, 3]),
    radius=st.integers(0, 20),
    sizes=st.tuples(st.integers(0, 60), st.integers(0, 60)),
)
def test_the_index_finds_exactly_what_brute_force_finds(seed: int, words: int, radius: int, sizes: tuple) -> None:
    everything = clustered(np.random.default_rng(seed), sum(sizes) or 1, words)
    queries, base = everything[: sizes[0]], everything[sizes[0] : sum(sizes)]
    found = [(int(a), int(b)) for rows in near_pairs(queries, base, radius) for a, b in zip(*rows, strict=True)]
    distances = np.bitwise_count(queries[:, None] ^ base[None]).sum(axis=2)
    expected = [(int(a), int(b)) for a, b in zip(*np.nonzero(distances <= radius), strict=True)]
    assert sorted(found) == expected  # each once


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1 << 30), radius=st.integers(0, 12))
def test_the_index_of_a_set_against_itself(seed: int, radius: int) -> None:
    hashes = clustered(np.random.default_rng(seed), 80, 1)
    found = near_pairs(hashes, hashes, radius, only_earlier=True)
    pairs = sorted((int(a), int(b)) for rows in found for a, b in zip(*rows, strict=True))
    distances = np.bitwise_count(hashes[:, None] ^ hashes[None]).sum(axis=2)
    assert pairs == [(a, b) for a in range(80) for b in range(a) if distances[a, b] <= radius]


def pictures(random: np.random.Generator, count: int) -> pa.Table:
    hashes = clustered(random, count, 1)[:, 0]
    shades = random.integers(0, 3, count).astype(np.uint8) * 3
    return pa.table(
        {
            "image_uid": [f"{n:032x}" for n in random.permutation(count)],
            "width": pa.array(random.integers(1, 4, count) * 100, pa.int32()),
            "height": pa.array([100] * count, pa.int32()),
            "bytes": pa.array(random.integers(1, 4, count), pa.int64()),
            "pixel_sha256": [str(n) for n in random.integers(0, max(1, count // 2), count)],
            "phash": [f"{h:016x}" for h in hashes.tolist()],
            "thumbnail": pa.array([bytes([shade] * 192) for shade in shades], pa.binary(192)),
        }
    )


def named(table: pa.Table, survivors: np.ndarray) -> dict[str, str | None]:
    uids = table["image_uid"].to_pylist()
    return {uid: None if s == NONE else uids[s] for uid, s in zip(uids, survivors.tolist(), strict=True)}


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 1 << 30), count=st.integers(1, 60), radius=st.integers(0, 8))
def test_survivors_do_not_depend_on_the_order_of_rows(seed: int, count: int, radius: int) -> None:
    random = np.random.default_rng(seed)
    table = pictures(random, count)
    shuffled = table.take(pa.array(random.permutation(count)))
    near = Near(radius=radius, max_difference=3.5)
    for copies in (exact_copies, lambda t, order: near_copies(t, order, near)):
        ours = named(table, copies(table, best_first(table)))
        assert ours == named(shuffled, copies(shuffled, best_first(shuffled)))
        for survivor in ours.values():
            assert survivor is None or ours[survivor] is None  # nothing falls to what falls itself


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1 << 30), count=st.integers(1, 50))
def test_near_copies_equal_the_plain_definition(seed: int, count: int) -> None:
    table = pictures(np.random.default_rng(seed), count)
    near = Near(radius=6, max_difference=3.5)
    order = best_first(table)
    hashes = [int(h, 16) for h in table["phash"].to_pylist()]
    thumbs = np.array([list(t) for t in table["thumbnail"].to_pylist()], dtype=np.uint8)
    kept: list[int] = []
    expected = np.full(count, NONE)
    for row in order.tolist():
        same = [
            other
            for other in kept
            if (hashes[row] ^ hashes[other]).bit_count() <= near.radius
            and confirmed(thumbs[[row]], thumbs[[other]], near)[0]
        ]
        if same:
            expected[row] = same[0]
        else:
            kept.append(row)
    assert near_copies(table, order, near).tolist() == expected.tolist()


def test_more_pixels_then_more_bytes_then_the_smaller_uid_survives() -> None:
    table = pa.table(
        {
            "image_uid": ["d", "c", "b", "a"],
            "width": pa.array([10, 20, 20, 20], pa.int32()),
            "height": pa.array([10, 10, 10, 10], pa.int32()),
            "bytes": [99, 5, 7, 7],
        }
    )
    assert table["image_uid"].take(pa.array(best_first(table))).to_pylist() == ["a", "b", "c", "d"]


def test_a_chain_of_small_changes_does_not_remove_its_far_end() -> None:
    # a ~ b ~ c, but a and c differ too much; a is the best.
    table = pa.table(
        {
            "image_uid": ["a", "b", "c"],
            "width": pa.array([3, 2, 1], pa.int32()),
            "height": pa.array([1, 1, 1], pa.int32()),
            "bytes": [1, 1, 1],
            "phash": ["0000000000000000", "000000000000000f", "00000000000000ff"],
            "thumbnail": pa.array([bytes(192)] * 3, pa.binary(192)),
        }
    )
    survivors = near_copies(table, best_first(table), Near(radius=4))
    assert named(table, survivors) == {"a": None, "b": "a", "c": None}


def test_thumbnails_agree_up_to_one_change_of_brightness() -> None:
    random = np.random.default_rng(0)
    dark = random.integers(20, 100, (1, 192)).astype(np.uint8)
    brighter = (dark * 1.5).astype(np.uint8)
    other = random.integers(20, 100, (1, 192)).astype(np.uint8)
    near = Near()
    assert confirmed(dark, brighter, near)[0]
    assert confirmed(brighter, dark, near)[0]
    assert not confirmed(dark, other, near)[0]
    assert not confirmed(dark, brighter, Near(max_relative_difference=None))[0]
    assert confirmed(dark, other, Near(max_difference=None, max_relative_difference=None))[0]


@pytest.mark.parametrize("shades", [(60, 90), (0, 255), (250, 255)])
def test_plain_pictures_of_two_shades_are_not_one_brightened(shades: tuple) -> None:
    left, right = (np.full((1, 192), shade, dtype=np.float32) for shade in shades)
    assert relative_difference(left, right)[0] == np.inf
