"""The data order: every sample once an epoch, near its neighbours on disk, and the same for everybody."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.train.order import Order

sizes = st.integers(1, 200)
seeds = st.integers(0, 2**32)
shapes = st.tuples(st.integers(1, 40), st.integers(1, 6))


@settings(deadline=None, max_examples=40)
@given(sizes, seeds, shapes, st.integers(0, 3))
def test_every_epoch_holds_every_sample_once(size: int, seed: int, shape: tuple[int, int], epoch: int) -> None:
    order = Order(size, seed, *shape)
    seen = [order(position) for position in range(epoch * size, (epoch + 1) * size)]
    assert {e for e, _ in seen} == {epoch}
    assert sorted(number for _, number in seen) == list(range(size))


@settings(deadline=None, max_examples=40)
@given(sizes, seeds, shapes, st.data())
def test_a_position_means_the_same_whenever_it_is_asked_for(
    size: int, seed: int, shape: tuple[int, int], data: st.DataObject
) -> None:
    whole = [Order(size, seed, *shape)(position) for position in range(2 * size)]
    resumed = Order(size, seed, *shape)
    start = data.draw(st.integers(0, 2 * size - 1))
    assert [resumed(position) for position in range(start, 2 * size)] == whole[start:]


def test_epochs_and_seeds_differ() -> None:
    def epoch(seed: int, number: int) -> list[int]:
        order = Order(200, seed)
        return [order(number * 200 + i)[1] for i in range(200)]

    assert epoch(0, 0) != epoch(0, 1) != epoch(1, 1)
    assert epoch(0, 0) != list(range(200))


def test_samples_of_a_window_come_from_few_blocks() -> None:
    order = Order(10_000, 0, block=100, window=4)
    for start in range(0, 9_600, 400):
        blocks = {order(start + i)[1] // 100 for i in range(400)}
        assert len(blocks) == 4


def test_an_empty_data_set_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Order(0, 0)
