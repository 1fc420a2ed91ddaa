"""The data order: every sample once an epoch, near its neighbours on disk, and the same for everybody."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.train.data.shuffle import Shuffle, permutation

sizes = st.integers(1, 400)
seeds = st.integers(0, 2**63 - 1)
shapes = st.tuples(st.integers(1, 12), st.integers(1, 4), st.integers(1, 9))  # block, window, stripes


@settings(deadline=None, max_examples=50)
@given(sizes, seeds, shapes, st.integers(0, 3))
def test_every_epoch_holds_every_sample_once(size: int, seed: int, shape: tuple[int, int, int], epoch: int) -> None:
    epochs, numbers = Shuffle(size, seed, *shape)(np.arange(epoch * size, (epoch + 1) * size))
    assert set(epochs.tolist()) == {epoch}
    assert sorted(numbers.tolist()) == list(range(size))


@settings(deadline=None, max_examples=50)
@given(sizes, seeds, shapes, st.data())
def test_a_place_means_the_same_whenever_and_with_whichever_others_it_is_asked_for(
    size: int, seed: int, shape: tuple[int, int, int], data: st.DataObject
) -> None:
    epochs, numbers = Shuffle(size, seed, *shape)(np.arange(3 * size))
    positions = np.array(data.draw(st.lists(st.integers(0, 3 * size - 1), max_size=50)), dtype=np.int64)
    other = Shuffle(size, seed, *shape)
    for part in np.array_split(positions, 3):
        found = other(part)
        assert found[0].tolist() == epochs[part].tolist()
        assert found[1].tolist() == numbers[part].tolist()


def test_epochs_and_seeds_differ_in_every_stripe_and_in_the_order_of_blocks() -> None:
    for size in (500, 5000):  # as a whole, and by stripes
        epochs = [Shuffle(size, seed, 8, 4, 16)(np.arange(size) + e * size)[1] for seed, e in ((0, 0), (0, 1), (1, 0))]
        for one, other in ((0, 1), (0, 2), (1, 2)):
            assert (epochs[one] == epochs[other]).mean() < 0.02


def test_the_order_is_the_same_on_every_machine_and_with_every_version_of_numpy() -> None:
    assert permutation(8, 7, 1).tolist() == [0, 6, 5, 2, 1, 4, 7, 3]
    assert Shuffle(1000, 5, block=4, window=2, stripes=8)(np.arange(1500, 1510))[1].tolist() == [
        640,
        581,
        266,
        273,
        447,
        681,
        54,
        980,
        579,
        603,
    ]


@pytest.mark.parametrize("ranks", [2, 4, 8, 16])
def test_ranks_that_share_the_stripes_of_each_batch_share_hardly_a_block(ranks: int) -> None:
    shuffle = Shuffle(60_013, 3, block=16, window=4, stripes=32)
    read: list[set[int]] = [set() for _ in range(ranks)]
    for start in range(0, 60_013 - 256, 256):
        positions = np.arange(start, start + 256)
        numbers = shuffle(positions)[1][np.argsort(shuffle.stripe(positions), kind="stable")]
        for rank, own in enumerate(np.split(numbers, ranks)):
            read[rank] |= set((own // 16).tolist())
    blocks = -(-60_013 // 16)
    shared = sum(len(own) for own in read) - blocks
    assert shared <= 32  # one block at each stripe's end
    assert max(len(own) for own in read) <= blocks / ranks + 32


def test_new_blocks_come_as_a_steady_flow_and_each_is_read_within_a_window() -> None:
    block, window, stripes, batch = 16, 4, 32, 256
    size = 50 * block * window * stripes
    shuffle = Shuffle(size, 1, block, window, stripes)
    found = shuffle(np.arange(size))[1] // block
    _, first = np.unique(found, return_index=True)
    last = size - 1 - np.unique(found[::-1], return_index=True)[1]
    # A block is in at most two windows of its stripe, where a window ends inside it.
    assert (last - first).max() < 2 * block * window * stripes
    assert np.median(last - first) < block * window * stripes
    fresh = np.bincount(first // batch, minlength=size // batch)[8:-8]
    assert fresh.max() <= 4 * fresh.mean()


def test_a_billion_samples_cost_a_number_per_block() -> None:
    began = time.process_time()
    shuffle = Shuffle(10**9, 1)
    positions = np.arange(3 * 10**9 + 10**8, 3 * 10**9 + 10**8 + 512)
    epochs, numbers = shuffle(positions)
    assert set(epochs.tolist()) == {3}
    assert len(set(numbers.tolist())) == 512
    assert shuffle._blocks(3)[0].nbytes < 20_000_000
    assert time.process_time() - began < 8


def test_an_empty_data_set_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Shuffle(0, 0)
