"""Near pictures, among themselves and in benchmarks, are those that comparing all pairs finds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.base.contract import UserError
from stages.index.likeness import differences, relative_difference
from stages.index.near import Pictures, near_copies, near_matches

pytestmark = pytest.mark.usefixtures("ray_session")


@pytest.fixture(scope="session")
def pictures(clustered):
    def make(seed: int, count: int, hash: str = "phash") -> Pictures:
        random = np.random.default_rng(seed)
        words = clustered(random, count, 3 if hash == "phash_rgb" else 1)
        few = random.integers(0, 256, (4, 192), dtype=np.uint8)
        return Pictures(hash, words, few[random.integers(0, 4, count)])

    return make


def everything(table, pictures: Pictures) -> dict[tuple[int, int], tuple[int, float]]:
    """All near pairs of rows, classes written out, as the schema describes them."""
    rows = table.to_pylist()
    same = {row["second"]: row["first"] for row in rows if row["distance"] == 0 and row["difference"] == 0}
    members: dict[int, list[int]] = {}
    for row in range(len(pictures)):
        members.setdefault(same.get(row, row), []).append(row)
    found = {}
    for row in rows:
        if row["second"] in same and same[row["second"]] == row["first"]:
            continue
        assert row["first"] not in same
        assert row["second"] not in same
        for a in members[row["first"]]:
            for b in members[row["second"]]:
                found[min(a, b), max(a, b)] = (row["distance"], row["difference"])
    for group in members.values():
        found |= {(a, b): (0, 0.0) for a in group for b in group if a < b}
    return found


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 1 << 30),
    count=st.integers(0, 60),
    radius=st.integers(0, 10),
    hash=st.sampled_from(["phash", "phash_rgb", "phash_d4"]),
)
def test_near_copies_are_all_near_pairs_once_equal_signatures_are_expanded(pictures, seed, count, radius, hash) -> None:
    made = pictures(seed, count, hash)
    table = near_copies(made, radius, 10_000)
    ends = list(zip(table["first"].to_pylist(), table["second"].to_pylist(), strict=True))
    assert ends == sorted(set(ends))
    assert all(first < second for first, second in ends)
    found = everything(table, made)
    distances = np.bitwise_count(made.words[:, None] ^ made.words[None]).sum(axis=2)
    expected = {(a, b) for a in range(count) for b in range(a + 1, count) if distances[a, b] <= radius}
    assert found.keys() == expected
    for (a, b), (distance, difference) in found.items():
        assert distance == distances[a, b]
        plain, _ = differences(made.thumbnails[[a]], made.thumbnails[[b]], positions=hash == "phash_d4")
        assert difference == pytest.approx(float(plain[0]))


def test_thousands_of_equal_pictures_give_a_star_and_no_square(pictures) -> None:
    count = 5000
    made = Pictures("phash", np.zeros((count, 1), np.uint64), np.zeros((count, 192), np.uint8))
    table = near_copies(made, 8, 100)
    assert table["first"].unique().to_pylist() == [0]
    assert table["second"].to_pylist() == list(range(1, count))


def test_a_crowd_of_unlike_thumbnails_is_refused_before_it_fills_the_memory() -> None:
    count = 300
    thumbnails = np.random.default_rng(0).integers(0, 256, (count, 192), dtype=np.uint8)
    made = Pictures("phash", np.zeros((count, 1), np.uint64), thumbnails)
    with pytest.raises(UserError, match=r"index\.max_near=1,000"):
        near_copies(made, 8, 1000)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1 << 30), count=st.integers(0, 60), other=st.integers(0, 40), radius=st.integers(0, 10))
def test_matches_in_a_benchmark_are_all_near_pairs_of_the_first_equal_pictures(
    pictures, seed, count, other, radius
) -> None:
    both = pictures(seed, count + other)
    made, base = both.take(np.arange(count)), both.take(np.arange(count, count + other))
    table = near_matches(made, base, radius, 10_000)
    found = sorted(zip(*(table[n].to_pylist() for n in ("first", "second", "distance")), strict=True))
    first = made.first_equal
    distances = np.bitwise_count(made.words[:, None] ^ base.words[None]).sum(axis=2)
    expected = [(a, b, int(distances[a, b])) for a in range(count) for b in range(other) if first[a] == a]
    assert found == [pair for pair in expected if pair[2] <= radius]


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
