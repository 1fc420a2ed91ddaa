"""Survivors among copies: the plain definition, the stated order, and the classes of the index."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.base.contract import UserError
from stages.index.schema import NEAR
from stages.select.components import component_labels, read_labels
from stages.select.config import Duplicates, Near, SelectConfig, SelectionConfig
from stages.select.duplicates import confirmed, order_of, preference, survivors
from stages.select.job import Job, scattered
from stages.select.near import EDGES, write_edges
from tests.stages.select.selecting import SMALL, select


def edges(rows: list[tuple[int, int, int, float, float]]) -> pa.Table:
    columns = list(zip(*sorted(rows), strict=True)) if rows else [[]] * 5
    return pa.table(dict(zip(NEAR.names, columns, strict=True))).cast(NEAR)


def plain_greedy(count: int, edges: list[tuple[int, int]], rank: list[int]) -> list[int]:
    """Best first: a node survives unless one that survives is near it; otherwise the best of these drops it."""
    near: dict[int, set[int]] = {n: set() for n in range(count)}
    for a, b in edges:
        near[a].add(b)
        near[b].add(a)
    final = list(range(count))
    kept: list[int] = []
    for node in sorted(range(count), key=lambda n: rank[n]):
        better = [k for k in kept if k in near[node]]
        if better:
            final[node] = min(better, key=lambda n: rank[n])
        else:
            kept.append(node)
    return final


def graph(kind: str, count: int, random: np.random.Generator) -> list[tuple[int, int]]:
    """Edges of a graph: a long chain, a giant component, or many small ones, with nodes in random order."""
    order = random.permutation(count).tolist()
    if kind == "chain":
        found = list(pairwise(order))
    elif kind == "giant":
        found = [(order[int(random.integers(n))], order[n]) for n in range(1, count)]
        found += [tuple(random.choice(count, 2, replace=False).tolist()) for _ in range(count)]
    else:
        found = [(a, b) for a in range(count) for b in range(a) if random.random() < 1 / (count + 1)]
    return sorted({(min(edge), max(edge)) for edge in found})


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 1 << 30), count=st.integers(2, 40), kind=st.sampled_from(["chain", "giant", "small"]))
def test_survivors_equal_the_plain_definition(seed: int, count: int, kind: str) -> None:
    random = np.random.default_rng(seed)
    found, rank = graph(kind, count, random), random.permutation(count)
    one, other = np.array(found, dtype=np.int64).reshape(-1, 2).T
    assert survivors(rank, one, other).tolist() == plain_greedy(count, found, rank.tolist())


@pytest.mark.parametrize("kind", ["chain", "giant", "small"])
def test_near_copies_over_ranges_and_components_equal_the_plain_definition(make_index, kind: str) -> None:
    count = 60
    random = np.random.default_rng(0)
    found, size = graph(kind, count, random), random.permutation(count) + 1
    images = [{"part": int(n), "bytes": int(size[n])} for n in random.integers(0, 12, count)]
    for n, row in enumerate(images):
        row["bytes"] = int(size[n])
    near = [{"first": a, "second": b, "distance": 1} for a, b in found]
    config = SelectConfig(selection=SelectionConfig(name="t", duplicates=Duplicates(near=Near(), survivor=["bytes"])))
    final = plain_greedy(count, found, (-size).tolist())
    for range_rows, limits in ((1000, None), (20, SMALL)):
        verdicts = select(make_index(images, near=near, range_rows=range_rows), config, limits=limits).verdicts()
        expected = ["" if final[n] == n else f"{final[n]:032x}" for n in range(count)]
        assert verdicts["detail"].to_pylist() == expected


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1 << 30), count=st.integers(2, 60), kind=st.sampled_from(["chain", "giant", "small"]))
def test_stars_alternate_until_every_node_points_to_the_smallest_of_its_component(
    tmp_path_factory, seed: int, count: int, kind: str
) -> None:
    found = graph(kind, count, np.random.default_rng(seed))
    job = Job(None, None, {}, str(tmp_path_factory.mktemp("graph")), SMALL)  # type: ignore[arg-type]
    first, second = np.array(found, dtype=np.int64).reshape(-1, 2).T
    for bucket in range(4):
        mine = scattered(second, 4) == bucket
        write_edges(job, bucket, pa.table([first[mine], second[mine]], schema=EDGES))
    passes = SimpleNamespace(job=job, buckets=lambda f, n, *args: (f(job, bucket, *args) for bucket in range(n)))
    passes.clear = lambda *names: None
    labels = component_labels(passes, 4)  # type: ignore[arg-type]
    smallest = {n: n for n in range(count)}
    for _ in range(count):
        for a, b in found:
            smallest[a] = smallest[b] = min(smallest[a], smallest[b])
    bucket_of = scattered(np.arange(count), 4)
    for bucket in range(4):
        nodes = np.flatnonzero(bucket_of == bucket)
        assert read_labels(labels, bucket).of(nodes).tolist() == [smallest[n] for n in nodes.tolist()]


def test_either_way_of_agreeing_confirms_and_without_both_the_hash_decides() -> None:
    rows = [(0, 1, 2, 1.0, 0.5), (0, 2, 2, 9.0, 0.07), (0, 3, 2, 9.0, 0.5), (0, 4, 9, 0.0, 0.0), (0, 5, 2, 2.0, 0.5)]
    assert confirmed(edges(rows), Near(radius=8)).tolist() == [True, True, False, False, True]
    alone = Near(radius=8, max_difference=None, max_relative_difference=None)
    assert confirmed(edges(rows), alone).tolist() == [True, True, True, False, True]


def test_a_chain_of_small_changes_does_not_remove_its_far_end() -> None:
    found = survivors(np.arange(3), np.array([0, 1]), np.array([1, 2]))
    assert found.tolist() == [0, 0, 2]


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
    uids = np.arange(4).astype(np.uint64)
    assert order_of(preference(table, np.arange(4), survivor), (uids, uids)).tolist() == order
    assert order_of(preference(table, np.array([3, 1]), survivor), (uids[[3, 1]], uids[:2])).tolist() == [
        *(n for n, row in sorted(enumerate([3, 1]), key=lambda item: order.index(item[1])))
    ]


def test_a_survivor_key_that_no_image_has_is_refused(make_index) -> None:
    selection = SelectionConfig(name="t", duplicates=Duplicates(survivor=["prettiness"]))
    with pytest.raises(UserError, match=r"survivor=prettiness: not a numeric column of images; .*sharpness"):
        select(make_index([{}]), SelectConfig(selection=selection))


def test_a_radius_beyond_the_index_is_refused(make_index) -> None:
    selection = SelectionConfig(name="t", duplicates=Duplicates(near=Near(radius=9)))
    with pytest.raises(UserError, match=r"duplicates\.near: the index was not searched by phash up to 9 bits"):
        select(make_index([{}]), SelectConfig(selection=selection))
