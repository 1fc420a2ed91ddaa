"""The order of samples and the cut into shards follow from the data alone."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stages.shard.plan import TEXT_ALLOWANCE, cut, shuffled

uids = st.sets(st.integers(0, 2**128 - 1), max_size=60).map(lambda xs: sorted(f"{x:032x}" for x in xs))


@given(uids=uids, seed=st.integers(0, 2**63 - 1))
def test_shuffling_is_a_permutation_and_repeats(uids: list[str], seed: int) -> None:
    order = shuffled(uids, seed)
    assert sorted(order) == list(range(len(uids)))
    assert (order == shuffled(uids, seed)).all()


@given(uids=uids, seed=st.integers(0, 1000), data=st.data())
def test_dropping_samples_leaves_the_others_in_order(uids: list[str], seed: int, data: st.DataObject) -> None:
    rest = [uid for uid in uids if data.draw(st.booleans())]
    full = [uids[i] for i in shuffled(uids, seed) if uids[i] in rest]
    assert [rest[i] for i in shuffled(rest, seed)] == full


def test_shuffling_leaves_no_trace_of_the_uid_order() -> None:
    uids = [f"{i:032x}" for i in range(0, 2**128, 2**128 // 5000)]
    order = shuffled(uids, 0)
    assert abs(np.corrcoef(order, np.arange(len(order)))[0, 1]) < 0.05


@given(
    lengths=st.lists(st.integers(0, 50_000), max_size=80),
    max_bytes=st.integers(1 << 16, 1 << 20),
    max_samples=st.integers(1, 30),
)
def test_shards_cover_all_samples_in_order_and_within_limits(
    lengths: list[int], max_bytes: int, max_samples: int
) -> None:
    ranges = cut(np.array(lengths, np.int64), max_bytes, max_samples)
    assert [i for start, stop in ranges for i in range(start, stop)] == list(range(len(lengths)))
    for start, stop in ranges:
        size = sum(lengths[start:stop]) + TEXT_ALLOWANCE * (stop - start)
        assert 1 <= stop - start <= max_samples
        assert size <= max_bytes or stop - start == 1
