"""Pairs shown several times an epoch: each as often as it says, wherever a run stops and however many ranks it has."""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from stages.base.artifact import Artifact
from stages.shard.index import IndexRow, to_table, write_index
from stages.shard.writer import ShardWriter
from stages.train.config import OptimizationConfig
from stages.train.data.dataset import TextTotals
from stages.train.data.loader import Loader
from stages.train.data.pairs import PairDataset
from stages.train.data.repeats import Repeats, shown_once
from stages.train.data.sampler import BatchSampler
from stages.train.data.shuffle import Shuffle
from stages.train.data.source_subset import subset_without, subsets_by_source
from stages.train.trainer.schedule import accumulation_steps

often = st.lists(st.integers(1, 5), min_size=1, max_size=60)


def column(times: list[int]) -> pa.ChunkedArray:
    half = len(times) // 2
    return pa.chunked_array([pa.array(times[:half], pa.int16()), pa.array(times[half:], pa.int16())])


@settings(max_examples=50, deadline=None)
@given(times=often, block=st.integers(1, 20))
def test_each_pair_has_as_many_samples_as_it_is_to_be_shown(times: list[int], block: int) -> None:
    repeats = Repeats(column(times), block)
    found = [repeats(sample) for sample in range(len(repeats))]
    assert Counter(pair for pair, _ in found) == dict(enumerate(times))
    assert sorted(found) == [(pair, repeat) for pair, count in enumerate(times) for repeat in range(count)]
    assert found == sorted(found, key=lambda one: (one[1], one[0]))  # pass by pass, in the order of the shards
    assert shown_once(column(times)) == (max(times) == 1)


def test_memory_grows_with_blocks_not_with_pairs() -> None:
    repeats = Repeats(column([2] * 50_000))
    assert repeats._starts.nbytes < 200
    assert len(repeats) == 100_000


@settings(max_examples=50, deadline=None)
@given(times=often, seed=st.integers(0, 99), epoch=st.integers(0, 2))
def test_every_epoch_shows_every_repeat_once(times: list[int], seed: int, epoch: int) -> None:
    repeats = Repeats(column(times), block=7)
    order = Shuffle(len(repeats), seed)
    epochs, numbers = order(np.arange(epoch * len(repeats), (epoch + 1) * len(repeats)))
    assert set(epochs.tolist()) == {epoch}
    assert Counter(repeats(number)[0] for number in numbers.tolist()) == dict(enumerate(times))


@settings(max_examples=50, deadline=None)
@given(times=often, data=st.data())
def test_many_samples_are_those_pairs_that_each_is_alone(times: list[int], data: st.DataObject) -> None:
    repeats = Repeats(column(times), block=7)
    samples = data.draw(st.lists(st.integers(0, len(repeats) - 1), max_size=40))
    assert repeats.pairs(np.array(samples, dtype=np.int64)).tolist() == [repeats(n)[0] for n in samples]


@settings(max_examples=50, deadline=None)
@given(times=often, data=st.data())
def test_subsets_of_sources_are_all_samples_each_once_pass_by_pass(times: list[int], data: st.DataObject) -> None:
    sources = data.draw(st.lists(st.sampled_from("abc"), min_size=len(times), max_size=len(times)))
    repeats = Repeats(column(times))
    half = len(times) // 2
    parts = [pa.array(part, pa.string()).dictionary_encode() for part in (sources[:half], sources[half:])]
    subsets = subsets_by_source(pa.chunked_array(parts), column(times), repeats)
    found = {source: own(np.arange(len(own))).tolist() for source, own in subsets.items()}
    assert set(found) == set(sources)
    for source, numbers in found.items():
        assert numbers == [n for n in range(len(repeats)) if sources[repeats(n)[0]] == source]
    left_out = data.draw(st.sets(st.sampled_from("abcd")))
    others = subset_without(left_out, pa.chunked_array(parts), column(times), repeats)
    expected = [n for n in range(len(repeats)) if sources[repeats(n)[0]] not in left_out]
    assert others(np.arange(len(others))).tolist() == expected


@pytest.mark.parametrize("cached", [2, 1024])
def test_subsets_reach_many_blocks_however_few_are_cached(cached: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages.train.data.source_subset._SLOTS", cached)
    random = np.random.default_rng(0)
    times, codes = random.integers(1, 4, 40_000), random.integers(0, 3, 40_000)
    shown = pa.chunked_array([pa.array(times, pa.int16())])
    repeats = Repeats(shown)
    names = pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), ["a", "b", "c"])
    subsets = subsets_by_source(pa.chunked_array([names]), shown, repeats)
    assert sum(map(len, subsets.values())) == len(repeats)
    whole = np.concatenate([np.flatnonzero(times > repeat) for repeat in range(3)])  # the pair of each sample
    for code, name in enumerate("abc"):
        numbers = subsets[name](np.arange(len(subsets[name])))
        assert (numbers == np.flatnonzero(codes[whole] == code)).all()
        positions = random.integers(0, len(numbers), 500)
        assert (subsets[name](positions) == numbers[positions]).all()
    two = subset_without({"b"}, pa.chunked_array([names]), shown, repeats)
    assert (two(np.arange(len(two))) == np.flatnonzero(codes[whole] != 1)).all()


def sealed(folder: Path) -> Artifact:
    names = [{"name": path.name} for path in sorted(folder.iterdir())]
    mark = hashlib.sha256(str(folder).encode()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps({"fingerprint": mark, "files": names, "counts": {}}))
    return Artifact(str(folder))


def pair_data(root: Path, times: list[int] | None) -> PairDataset:
    """Twelve pairs in two shards; `times` null leaves the column out, as in an index from elsewhere."""
    shards, tokens = root / "shards", root / "tokens"
    shards.mkdir(parents=True)
    tokens.mkdir()
    rows: list[IndexRow] = []
    listed: list[dict[str, Any]] = []
    for shard in range(2):
        with ShardWriter(shards / f"train-{shard:05d}.tar") as tar:
            for place in range(6):
                number = shard * 6 + place
                image = io.BytesIO()
                noise = np.random.default_rng(number).integers(0, 255, (16, 16, 3), np.uint8)
                Image.fromarray(noise).save(image, "png")
                uid = f"{number:032x}"
                at = tar.add(uid, {"png": image.getvalue(), "txt": b"a", "json": b"{}"})
                repeats = times[number] if times else 1
                rows.append(IndexRow(uid, uid, "s", shard, "png", *at["png"], *at["txt"], *at["json"], repeats))
        np.save(tokens / f"train-{shard:05d}.ids.npy", np.arange(3, 9, dtype=np.uint16) + 6 * shard)
        np.save(tokens / f"train-{shard:05d}.offsets.npy", np.arange(7, dtype=np.int64))
        listed.append({"name": f"train-{shard:05d}.tar", "samples": 6})
    table = to_table(rows)
    write_index(shards / "index.arrow", [table])
    if times is None:
        with pa.ipc.new_file(str(shards / "index.arrow"), table.drop_columns("repeats").schema) as writer:
            writer.write_table(table.drop_columns("repeats"))
    (shards / "dataset.json").write_text(json.dumps({"samples": 12, "shards": listed}))
    stems = [entry["name"].removesuffix(".tar") for entry in listed]
    (tokens / "tokens.json").write_text(json.dumps({"vocabulary": 99, "shards": stems}))
    return PairDataset(sealed(shards), sealed(tokens), max_tokens=4)


def stream(data: Any, settings: OptimizationConfig, steps: range, world: int = 1) -> list[tuple[int, torch.Tensor]]:
    """(token, pixels) of all samples of some steps, in the order of the run."""
    found = []
    micro = accumulation_steps(settings, world, "train")
    loaders = [Loader(data, settings, 8, rank, world, micro) for rank in range(world)]
    for step in steps:
        for loader in loaders:
            for part in range(micro):
                batch = loader.micro_batch(step, part)
                tokens = batch["target_ids"][:, 0].tolist()
                found += list(zip(tokens, batch["pixels"], strict=True))
    return found


def test_an_epoch_shows_each_pair_as_often_as_it_says_each_time_augmented_anew(tmp_path: Path, settings: Any) -> None:
    times = [1, 2, 3, 1, 1, 2, 1, 1, 4, 1, 2, 5]  # 24: three steps of 8
    data = pair_data(tmp_path, times)
    assert len(data) == 24
    seen = stream(data, settings, range(3))
    assert Counter(token - 3 for token, _ in seen) == dict(enumerate(times))
    last = [pixels for token, pixels in seen if token == 3 + 11]
    assert not any(torch.equal(a, b) for n, a in enumerate(last) for b in last[:n])


def test_ranks_and_restarts_do_not_change_what_repeats_show(tmp_path: Path, settings: Any) -> None:
    data = pair_data(tmp_path, [1, 2, 3, 1, 1, 2, 1, 1, 4, 1, 2, 5])
    whole = stream(data, settings, range(6))
    for world in (2, 4):
        again = stream(data, settings, range(6), world)
        assert [token for token, _ in again] == [token for token, _ in whole]
        assert all(torch.equal(a, b) for (_, a), (_, b) in zip(again, whole, strict=True))
    resumed = stream(data, settings, range(4, 6))
    assert [token for token, _ in resumed] == [token for token, _ in whole[32:]]


@pytest.mark.parametrize("times", [None, [1] * 12])
def test_pairs_shown_once_come_in_the_order_they_always_came(tmp_path: Path, settings: Any, times: Any) -> None:
    data = pair_data(tmp_path, times)
    order = BatchSampler(data, settings.seed, settings.global_batch)
    seen = stream(data, settings, range(3))
    assert [token - 3 for token, _ in seen] == [n for step in range(3) for n in order.batch(step)[1].tolist()]
    assert {data.sample(n, 0).seed for n in range(12)} == {f"{n:032x}" for n in range(12)}


def test_the_longest_text_of_many_samples_is_that_of_one_of_them(tmp_path: Path) -> None:
    data = pair_data(tmp_path, [1, 2, 3, 1, 1, 2, 1, 1, 4, 1, 2, 5])
    for seed in range(5):
        numbers = np.random.default_rng(seed).integers(0, len(data), 4)
        epochs = np.zeros(4, dtype=np.int64)
        lengths = [data.lengths(int(number), 0) for number in numbers]
        assert data.longest(numbers, epochs) == tuple(max(column) for column in zip(*lengths, strict=True))
        totals = data.totals(numbers, epochs, lambda seed, epoch: False)
        assert totals == TextTotals(4, sum(target for _, target in lengths))
