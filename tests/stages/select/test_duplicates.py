"""Survivors among copies: the plain definition, the stated order, and the classes of the index."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.base.contract import UserError
from stages.index.schema import NEAR
from stages.select.config import Duplicates, Near, SelectConfig, SelectionConfig
from stages.select.duplicates import NONE, confirmed, exact_copies, near_copies, preference
from stages.select.verdict import decide


def edges(rows: list[tuple[int, int, int, float, float]]) -> pa.Table:
    columns = list(zip(*sorted(rows), strict=True)) if rows else [[]] * 5
    return pa.table(dict(zip(NEAR.names, columns, strict=True))).cast(NEAR)


def drawn(seed: int, count: int) -> tuple[np.ndarray, pa.Table, np.ndarray, np.ndarray]:
    """Classes, edges between their first members, rows that take part, and their ranks."""
    random = np.random.default_rng(seed)
    first: dict[int, int] = {}
    classes = np.array([first.setdefault(int(c), n) for n, c in enumerate(random.integers(0, count, count))], np.int32)
    rows = [(int(classes[n]), n, 0, 0.0, 0.0) for n in range(count) if classes[n] != n]
    leaders = np.unique(classes).tolist()
    for a in leaders:
        for b in leaders:
            if a < b and random.random() < 0.15:
                rows.append((a, b, int(random.integers(1, 12)), float(random.random() * 4), float(random.random() / 5)))
    there = np.sort(random.permutation(count)[: int(random.integers(0, count + 1))])
    rank = np.full(count, -1)
    rank[there] = random.permutation(len(there))
    return classes, edges(rows), there.astype(np.int64), rank


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 1 << 30),
    count=st.integers(1, 40),
    near=st.builds(
        Near,
        radius=st.integers(0, 10),
        max_difference=st.none() | st.floats(0, 4),
        max_relative_difference=st.none() | st.floats(0, 0.2),
    ),
)
def test_near_copies_equal_the_plain_definition(seed: int, count: int, near: Near) -> None:
    classes, table, rows, rank = drawn(seed, count)
    agree = confirmed(table, near)
    alike = {
        (a, b) for a, b, yes in zip(table["first"].to_pylist(), table["second"].to_pylist(), agree, strict=True) if yes
    }
    kept: list[int] = []
    expected = np.full(count, NONE)
    for row in sorted(rows.tolist(), key=lambda n: rank[n]):
        mine = classes[row]
        same = [k for k in kept if classes[k] == mine or tuple(sorted((mine, classes[k]))) in alike]
        if same:
            expected[row] = same[0]
        else:
            kept.append(row)
    found = near_copies(classes, table, near, rows, rank)
    assert found.tolist() == expected.tolist()
    assert all(found[survivor] == NONE for survivor in found[found != NONE])


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 1 << 30), count=st.integers(1, 40))
def test_exact_copies_leave_the_best_of_each_group(seed: int, count: int) -> None:
    group, _, rows, rank = drawn(seed, count)
    found = exact_copies(group, rows, rank)
    for row in rows.tolist():
        best = min((n for n in rows.tolist() if group[n] == group[row]), key=lambda n: rank[n])
        assert found[row] == (NONE if best == row else best)
    assert (found[~np.isin(np.arange(count), rows)] == NONE).all()


def test_either_way_of_agreeing_confirms_and_without_both_the_hash_decides() -> None:
    rows = [(0, 1, 2, 1.0, 0.5), (0, 2, 2, 9.0, 0.07), (0, 3, 2, 9.0, 0.5), (0, 4, 9, 0.0, 0.0), (0, 5, 2, 2.0, 0.5)]
    assert confirmed(edges(rows), Near(radius=8)).tolist() == [True, True, False, False, True]
    alone = Near(radius=8, max_difference=None, max_relative_difference=None)
    assert confirmed(edges(rows), alone).tolist() == [True, True, True, False, True]


def test_a_chain_of_small_changes_does_not_remove_its_far_end() -> None:
    chain = edges([(0, 1, 2, 0.0, 0.0), (1, 2, 2, 0.0, 0.0)])
    every = np.arange(3)
    found = near_copies(np.arange(3, dtype=np.int32), chain, Near(radius=4), every, every)
    assert found.tolist() == [NONE, 0, NONE]


def images(**columns: Any) -> pa.Table:
    return pa.table(columns)


@pytest.mark.parametrize(
    ("survivor", "order"),
    [
        (["pixels", "bytes", "uid"], [3, 2, 1, 0]),
        (["uid"], [0, 1, 2, 3]),
        (["bytes"], [0, 2, 3, 1]),
        (["source", "pixels"], [1, 0, 3, 2]),
        (["sharpness"], [2, 0, 1, 3]),
        (["-sharpness"], [1, 0, 2, 3]),
    ],
)
def test_the_stated_order_decides_which_copy_survives(survivor: list[str], order: list[int]) -> None:
    table = images(
        source=pa.array([0, 0, 1, 1], pa.int16()),
        width=pa.array([10, 20, 20, 30], pa.int32()),
        height=pa.array([10, 10, 10, 10], pa.int32()),
        bytes=[99, 5, 7, 7],
        sharpness=[2.0, 1.0, 3.0, None],
    )
    rank = preference(table, np.arange(4), survivor)
    assert np.argsort(rank).tolist() == order
    assert preference(table, np.array([3, 1]), survivor)[[0, 2]].tolist() == [-1, -1]


def test_a_survivor_key_that_no_image_has_is_refused(make_index) -> None:
    selection = SelectionConfig(name="t", duplicates=Duplicates(survivor=["prettiness"]))
    with pytest.raises(UserError, match=r"survivor=prettiness: not a numeric column of images; .*sharpness"):
        decide(make_index([{}]), SelectConfig(selection=selection))


def test_a_radius_beyond_the_index_is_refused(make_index) -> None:
    selection = SelectionConfig(name="t", duplicates=Duplicates(near=Near(radius=9)))
    with pytest.raises(UserError, match=r"duplicates\.near: the index was not searched by phash up to 9 bits"):
        decide(make_index([{}]), SelectConfig(selection=selection))
