"""Near pictures, among themselves and in benchmarks, are those that comparing all pairs finds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.base.contract import UserError
from stages.index.likeness import differences, relative_difference
from stages.index.matches import Pictures, near_matches


@pytest.fixture(scope="session")
def pictures(clustered):
    def make(seed: int, count: int, hash: str = "phash") -> Pictures:
        random = np.random.default_rng(seed)
        words = clustered(random, count, 3 if hash == "phash_rgb" else 1)
        few = random.integers(0, 256, (4, 192), dtype=np.uint8)
        return Pictures(hash, words, few[random.integers(0, 4, count)])

    return make


def everything(found, count: int) -> dict[tuple[int, int], tuple[int, float]]:
    """All near pairs of rows, classes written out, as the schema describes them."""
    members: dict[int, list[int]] = {}
    for row, first in enumerate(found.classes.tolist()):
        members.setdefault(first, []).append(row)
    assert all(first == rows[0] for first, rows in members.items())
    assert found.among.tolist() == [len(members[first]) > 1 for first in found.classes.tolist()]
    pairs = {}
    for edge in found.edges.to_pylist():
        for a in members[edge["first"]]:
            for b in members[edge["second"]]:
                pairs[min(a, b), max(a, b)] = (edge["distance"], edge["difference"])
    for group in members.values():
        pairs |= {(a, b): (0, 0.0) for a in group for b in group if a < b}
    return pairs


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1 << 30),
    count=st.integers(0, 60),
    radius=st.integers(0, 10),
    hash=st.sampled_from(["phash", "phash_rgb", "phash_d4"]),
    rows=st.sampled_from([1, 7, 1000, 10**9]),
    cell_rows=st.sampled_from([1, 10, 10**6]),
)
def test_near_copies_are_all_near_pairs_once_classes_are_expanded(
    pictures, near_copies, seed, count, radius, hash, rows, cell_rows
) -> None:
    made = pictures(seed, count, hash)
    found = near_copies(made, radius, rows=max(rows, 7) if count > 20 else rows, cell_rows=cell_rows)
    ends = list(zip(found.edges["first"].to_pylist(), found.edges["second"].to_pylist(), strict=True))
    assert ends == sorted(set(ends))
    assert all(first < second for first, second in ends)
    pairs = everything(found, count)
    distances = np.bitwise_count(made.words[:, None] ^ made.words[None]).sum(axis=2)
    expected = {(a, b) for a in range(count) for b in range(a + 1, count) if distances[a, b] <= radius}
    assert pairs.keys() == expected
    for (a, b), (distance, difference) in pairs.items():
        assert distance == distances[a, b]
        plain, _ = differences(made.thumbnails[[a]], made.thumbnails[[b]], positions=hash == "phash_d4")
        assert difference == pytest.approx(float(plain[0]))


def test_thousands_of_equal_pictures_are_a_class_and_no_square(near_copies) -> None:
    count = 5000
    made = Pictures("phash", np.zeros((count, 1), np.uint64), np.zeros((count, 192), np.uint8))
    found = near_copies(made, 8, 100, rows=2000)
    assert found.edges.num_rows == 0
    assert not found.classes.any()
    assert found.among.all()


def test_a_crowd_of_unlike_thumbnails_is_listed_once_or_refused_before_it_fills_the_disk(near_copies) -> None:
    count = 300
    thumbnails = np.random.default_rng(0).integers(0, 256, (count, 192), dtype=np.uint8)
    made = Pictures("phash", np.zeros((count, 1), np.uint64), thumbnails)
    with pytest.raises(UserError, match=r"index\.max_near=1,000"):
        near_copies(made, 8, 1000)
    edges = near_copies(made, 8, count * (count - 1) // 2, rows=90).edges
    pairs = set(zip(edges["first"].to_pylist(), edges["second"].to_pylist(), strict=True))
    assert len(pairs) == edges.num_rows == count * (count - 1) // 2


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1 << 30), count=st.integers(0, 60), other=st.integers(0, 40), radius=st.integers(0, 10))
def test_matches_in_a_benchmark_are_all_near_pairs(pictures, seed, count, other, radius) -> None:
    both = pictures(seed, count + other)
    made, base = both.take(np.arange(count)), both.take(np.arange(count, count + other))
    table = near_matches(made, base, radius, 10_000)
    found = sorted(zip(*(table[n].to_pylist() for n in ("first", "second", "distance")), strict=True))
    distances = np.bitwise_count(made.words[:, None] ^ base.words[None]).sum(axis=2)
    expected = [(a, b, int(distances[a, b])) for a in range(count) for b in range(other)]
    assert found == [pair for pair in expected if pair[2] <= radius]
    if found:
        with pytest.raises(UserError, match=r"index\.max_near="):
            near_matches(made, base, radius, len(found) - 1)


def test_thumbnails_agree_up_to_one_change_of_brightness() -> None:
    random = np.random.default_rng(0)
    dark = random.integers(20, 100, (1, 192)).astype(np.uint8)
    brighter = (dark * 1.5).astype(np.uint8)
    other = random.integers(20, 100, (1, 192)).astype(np.uint8)
    assert differences(dark, brighter)[1][0] < 0.07
    assert differences(brighter, dark)[1][0] < 0.07
    assert differences(dark, other)[1][0] > 0.5
    assert differences(dark, brighter)[0][0] > 20


@pytest.mark.parametrize("shades", [(60, 90), (0, 255), (250, 255)])
def test_plain_pictures_of_two_shades_are_not_one_brightened(shades: tuple) -> None:
    left, right = (np.full((1, 192), shade, dtype=np.float32) for shade in shades)
    assert relative_difference(left, right)[0] == np.inf


def test_a_turned_or_mirrored_thumbnail_is_no_different_where_positions_do_not_count() -> None:
    square = np.random.default_rng(1).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    for turns in range(4):
        for picture in (square, square[:, ::-1]):
            other = np.rot90(picture, turns).reshape(1, 192)
            assert differences(square.reshape(1, 192), other, positions=True)[0][0] == 0
    assert differences(square.reshape(1, 192), square[:, ::-1].reshape(1, 192))[0][0] > 10
