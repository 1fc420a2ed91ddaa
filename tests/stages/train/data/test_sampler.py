"""Global batches: the same at each step whoever takes part, every sample once an epoch, sources in their shares."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.base.artifact import Artifact
from stages.base.contract import UserError
from stages.train.config import OptimizationConfig
from stages.train.data.dataset import TrainingSample
from stages.train.data.repeats import Repeats
from stages.train.data.sampler import BatchSampler, rank_rows
from stages.train.data.shuffle import STRIPES
from stages.train.data.source_subset import SourceSubset, mixture_subsets, subset_without, subsets_by_source
from stages.train.trainer.schedule import accumulation_steps


class Listed:
    """Pairs of some sources, each shown some times an epoch, as an index would list them."""

    def __init__(self, sources: Sequence[str], times: Sequence[int], image_only: str = "") -> None:
        self.column = pa.chunked_array([pa.array(list(sources)).dictionary_encode()])
        self.times = pa.chunked_array([pa.array(list(times), pa.int16())])
        self.repeats = Repeats(self.times)
        self.image_only = tuple(image_only)

    def __len__(self) -> int:
        return len(self.repeats)

    def sample(self, number: int, epoch: int) -> TrainingSample:
        raise AssertionError("an order needs no sample")

    def lengths(self, number: int, epoch: int) -> tuple[int, int]:
        raise AssertionError("an order needs no text")

    def subsets(self, sources: Sequence[str]) -> Mapping[str, SourceSubset]:
        return mixture_subsets(subsets_by_source(self.column, self.times, self.repeats), sources)

    def with_texts(self) -> SourceSubset | None:
        if not self.image_only:
            return None
        return subset_without(self.image_only, self.column, self.times, self.repeats)


data_sets = st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 3)), min_size=1, max_size=120).map(
    lambda pairs: Listed([source for source, _ in pairs], [times for _, times in pairs])
)


def mixture_of(data: Listed, weights: Sequence[int]) -> dict[str, float]:
    names = sorted(set(data.column.to_pylist()))
    return {name: float(weight) for name, weight in zip(names, weights, strict=False)}


def run(stream: BatchSampler, steps: Sequence[int]) -> list[tuple[int, int]]:
    batches = [stream.batch(step) for step in steps]
    return [pair for epochs, numbers in batches for pair in zip(epochs.tolist(), numbers.tolist(), strict=True)]


@settings(deadline=None, max_examples=50)
@given(data_sets, st.integers(0, 99), st.sampled_from([1, 4, 7, 64]))
def test_no_sample_is_lost_or_repeated_over_an_epoch(data: Listed, seed: int, batch: int) -> None:
    # Batches of 7 end in the middle of epochs; those of 64 hold several epochs of a small data set.
    stream = BatchSampler(data, seed, batch)
    seen = run(stream, range(-(-3 * len(data) // batch)))
    whole = [pair for pair in seen if pair[0] < 3]
    assert Counter(whole) == Counter((epoch, number) for epoch in range(3) for number in range(len(data)))
    assert {epoch for epoch, _ in seen} <= {0, 1, 2} | {e for e, _ in run(stream, [len(seen) // batch - 1])}


@settings(deadline=None, max_examples=50)
@given(data_sets, st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 5)), st.booleans(), st.data())
def test_all_ranks_together_see_one_global_batch_at_each_step_wherever_they_start(
    data: Listed, weights: tuple[int, int, int], mixed: bool, drawn: st.DataObject
) -> None:
    mixture = mixture_of(data, weights) if mixed else None
    whole = {step: run(BatchSampler(data, 5, 16, mixture), [step]) for step in range(6)}
    for world, micro in ((1, 4), (2, 4), (4, 2), (8, 1), (16, 1)):
        accumulation = 16 // (world * micro)
        restarted = BatchSampler(data, 5, 16, mixture)
        for step in drawn.draw(st.permutations(range(6)))[:3]:
            union = []
            for rank in range(world):
                epochs, numbers = restarted.batch(step)
                for part in range(accumulation):
                    own = rank_rows(part, rank, accumulation, micro)
                    union += list(zip(epochs[own].tolist(), numbers[own].tolist(), strict=True))
            assert union == whole[step]


@settings(deadline=None, max_examples=50)
@given(data_sets, st.tuples(st.integers(1, 5), st.integers(0, 5), st.integers(0, 5)), st.integers(0, 50))
def test_a_mixture_takes_each_source_in_its_share_and_through_epochs_of_its_own(
    data: Listed, weights: tuple[int, int, int], seed: int
) -> None:
    mixture = mixture_of(data, weights)
    total = int(sum(mixture.values()))
    seen = run(BatchSampler(data, seed, total, mixture), range(60))
    column, times = data.column.to_pylist(), data.times.to_pylist()
    shown = {name: sum(t for s, t in zip(column, times, strict=True) if s == name) for name in mixture}
    of = [column[data.repeats(number)[0]] for _, number in seen]
    for start in range(0, len(of), total):  # each batch is one period, or several
        assert Counter(of[start : start + total]) == Counter({s: int(w) for s, w in mixture.items() if w})
    for source, size in shown.items():
        own = [pair for pair, name in zip(seen, of, strict=True) if name == source]
        for epoch in range(len(own) // size):
            pairs = Counter(data.repeats(number)[0] for e, number in own if e == epoch)
            assert pairs == Counter({i: t for i, t in enumerate(times) if column[i] == source})


def test_a_source_keeps_its_order_when_another_one_joins() -> None:
    alone, joined = Listed("a" * 50, [1] * 50), Listed("b" * 30 + "a" * 50, [1] * 80)
    first = [number for _, number in run(BatchSampler(alone, 1, 10, {"a": 1}), range(10))]
    second = [
        number - 30 for _, number in run(BatchSampler(joined, 1, 20, {"b": 1, "a": 1}), range(10)) if number >= 30
    ]
    for start in range(0, 100, 10):
        assert sorted(first[start : start + 10]) == sorted(second[start : start + 10])


def test_a_mixture_must_name_the_sources_of_the_data_and_no_other() -> None:
    data = Listed("aab", [1, 1, 1])
    with pytest.raises(UserError, match="does not name b"):
        BatchSampler(data, 0, 4, {"a": 1})
    with pytest.raises(UserError, match="no sample of z, only of a, b"):
        BatchSampler(data, 0, 4, {"a": 1, "b": 0, "z": 0})
    assert {n for _, n in run(BatchSampler(data, 0, 4, {"a": 1, "b": 0}), range(3))} == {0, 1}


@settings(deadline=None, max_examples=50)
@given(data_sets, st.integers(0, 99), st.sampled_from([1, 4, 7, 64]))
def test_where_texts_are_needed_an_epoch_is_every_sample_with_a_text_once(data: Listed, seed: int, batch: int) -> None:
    sources = data.column.to_pylist()
    mixed = Listed(sources, data.times.to_pylist(), image_only="b")
    captioned = [number for number in range(len(mixed)) if sources[mixed.repeats(number)[0]] != "b"]
    if not captioned:
        with pytest.raises(UserError, match="no sample"):
            BatchSampler(mixed, seed, batch)
        return
    seen = run(BatchSampler(mixed, seed, batch), range(-(-3 * len(captioned) // batch)))
    assert Counter(pair for pair in seen if pair[0] < 3) == Counter((e, n) for e in range(3) for n in captioned)
    # What needs no texts sees all, in the order of a data set in which all have one.
    steps = range(-(-2 * len(mixed) // batch))
    assert run(BatchSampler(mixed, seed, batch, needs_texts=False), steps) == run(
        BatchSampler(data, seed, batch), steps
    )


@settings(deadline=None, max_examples=30)
@given(data_sets, st.integers(0, 99))
def test_samples_with_texts_come_in_one_order_wherever_a_run_starts(data: Listed, seed: int) -> None:
    mixed = Listed(data.column.to_pylist(), data.times.to_pylist(), image_only="c")
    if not len(mixed.with_texts() or ()):
        return
    whole = {step: run(BatchSampler(mixed, seed, 8), [step]) for step in range(6)}
    for step in (5, 2, 0, 3):
        assert run(BatchSampler(mixed, seed, 8), [step]) == whole[step]


def test_a_mixture_leaves_image_only_sources_out_where_texts_are_needed() -> None:
    data = Listed("a" * 20 + "b" * 20 + "c" * 20, [1] * 60, image_only="c")
    mixture = {"a": 1.0, "b": 3.0, "c": 4.0}

    def shares(needs_texts: bool) -> Counter[str]:
        seen = run(BatchSampler(data, 0, 8, mixture, needs_texts), range(10))
        return Counter("abc"[number // 20] for _, number in seen)

    assert shares(True) == {"a": 20, "b": 60}
    assert shares(False) == {"a": 10, "b": 30, "c": 40}
    with pytest.raises(UserError, match="does not name c"):
        BatchSampler(data, 0, 8, {"a": 1.0, "b": 1.0})
    with pytest.raises(UserError, match="no source has a weight above 0"):
        BatchSampler(data, 0, 8, {"a": 0, "b": 0, "c": 1.0})


def test_a_rank_takes_its_samples_from_its_own_lanes() -> None:
    size = 300_000
    batch = 1024
    stream = BatchSampler(Listed("a" * size, [1] * size), 3, batch)
    blocks: list[set[int]] = [set() for _ in range(4)]
    for step in range(size // batch):
        for rank, own in enumerate(np.split(stream.batch(step)[1], 4)):
            blocks[rank] |= set((own // 256).tolist())
    assert sum(len(own) for own in blocks) <= -(-size // 256) + STRIPES


def test_a_batch_cannot_be_changed_by_whoever_asked_for_it() -> None:
    stream = BatchSampler(Listed("ab" * 10, [1] * 20), 0, 4)
    with pytest.raises(ValueError, match="read-only"):
        stream.batch(0)[1][0] = 7


@pytest.mark.parametrize("per_shard", [(1, 9, 2, 13, 0, 5), (3,)])
def test_uneven_shards_and_more_ranks_than_shards(
    per_shard: tuple[int, ...], pair_files: Callable[..., tuple[Artifact, Artifact]]
) -> None:
    from stages.train.data.pairs import PairDataset

    data = PairDataset(*pair_files(per_shard), max_tokens=8)
    size = sum(per_shard)
    assert len(data) == size
    stream = BatchSampler(data, 1, 8)
    ranks: list[list[str]] = [[] for _ in range(8)]
    for step in range(size):  # eight epochs
        epochs, numbers = stream.batch(step)
        for rank in range(8):
            own = rank_rows(0, rank, 1, 1)
            ranks[rank] += [
                data.sample(n, e).uid for e, n in zip(epochs[own].tolist(), numbers[own].tolist(), strict=True)
            ]
    assert Counter(uid for own in ranks for uid in own) == {f"{n:032x}": 8 for n in range(size)}
    assert {len(own) for own in ranks} == {size}


def test_without_a_sample_there_is_no_stream() -> None:
    with pytest.raises(UserError, match="no sample"):
        BatchSampler(Listed("", []), 0, 4)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 8), st.integers(1, 5), st.integers(1, 6))
def test_ranks_and_micro_steps_cover_a_step_exactly_once(micro: int, world: int, accumulation: int) -> None:
    size = micro * world * accumulation
    assert accumulation_steps(OptimizationConfig(global_batch=size, micro_batch=micro), world, "train") == accumulation
    batch = list(range(size))
    rows = [batch[rank_rows(part, rank, accumulation, micro)] for rank in range(world) for part in range(accumulation)]
    assert [row for some in rows for row in some] == batch  # a rank's rows lie together
