"""The order of samples and the cut into shards follow from the data alone, however it is divided into ranges."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.base.artifact import Artifact
from stages.base.contract import UserError
from stages.base.tasks import InProcess
from stages.base.uids import packed
from stages.shard import gather as gathering
from stages.shard.gather import OrderedSamples, gather, order_keys, samples_of
from stages.shard.plan import TEXT_ALLOWANCE, cut, why_nothing_is_kept

uids = st.sets(st.integers(0, 2**128 - 1), max_size=60).map(lambda xs: sorted(f"{x:032x}" for x in xs))

MASK = 2**64 - 1


def mixed(x: int) -> int:
    """SplitMix64's finaliser, on Python's integers."""
    x = (x + 0x9E3779B97F4A7C15) & MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def in_order(uids: Sequence[str], seed: int) -> list[str]:
    return sorted(uids, key=lambda uid: (mixed(int(uid[:16], 16) ^ mixed(seed)), uid))


def cut_at_once(lengths: Sequence[int], max_bytes: int, max_samples: int) -> list[tuple[int, int]]:
    """Ranges of samples per shard, from the lengths of all."""
    ranges, start = [], 0
    while start < len(lengths):
        stop, size = start, 0
        while stop < len(lengths) and stop - start < max_samples:
            size += lengths[stop] + TEXT_ALLOWANCE
            if size > max_bytes and stop > start:
                break
            stop += 1
        ranges.append((start, stop))
        start = stop
    return ranges


@given(uids=uids, seed=st.integers(0, 2**63 - 1))
def test_the_keys_are_splitmix64_of_the_leading_half_and_the_seed(uids: list[str], seed: int) -> None:
    keys = order_keys(packed(pa.array(uids, pa.string())), seed)
    assert keys.tolist() == [mixed(int(uid[:16], 16) ^ mixed(seed)) for uid in uids]


def test_the_order_leaves_no_trace_of_the_uids() -> None:
    keys = order_keys(packed(pa.array([f"{i:032x}" for i in range(0, 2**128, 2**128 // 5000)])), 0)
    order = np.argsort(keys)
    assert abs(np.corrcoef(order, np.arange(len(order)))[0, 1]) < 0.05


@given(
    lengths=st.lists(st.lists(st.integers(0, 50_000), max_size=30), max_size=8),
    max_bytes=st.integers(1 << 14, 1 << 18),
    max_samples=st.integers(1, 30),
)
def test_shards_are_cut_as_if_there_were_no_buckets(lengths: list[list[int]], max_bytes: int, max_samples: int) -> None:
    starts = np.cumsum([0, *map(len, lengths)]).tolist()
    whole = [length for bucket in lengths for length in bucket]
    found = []
    for places in cut((np.array(bucket, np.int64) for bucket in lengths), max_bytes, max_samples):
        rows = [starts[bucket] + row for bucket, start, stop in places for row in range(start, stop)]
        assert rows == list(range(rows[0], rows[-1] + 1))
        found.append((rows[0], rows[-1] + 1))
    assert found == cut_at_once(whole, max_bytes, max_samples)


def expected(inputs: dict[str, list[Artifact]], seed: int) -> list[dict[str, Any]]:
    """All samples in order, from all files at once."""
    verdicts, images, texts = {}, {}, {}
    for row in rows_of(inputs["verdicts"], "verdicts-*"):
        verdicts[row["uid"]] = {name: row[name] for name in ("uid", "image_uid", "source", "repeats", "keep")}
    for number, raw in enumerate(inputs["raw"]):
        for name in raw.names("attempts-*"):
            shard = name.removeprefix("attempts-").removesuffix(".parquet")
            for row in pq.read_table(raw.path(name)).to_pylist():
                images[row["image_uid"]] = {
                    **{name: row[name] for name in ("width", "height", "sha256", "source_sha256", "ext", "offset")},
                    "length": row["length"],
                    "raw": number,
                    "shard": shard,
                }
    for row in rows_of(inputs["pairs"], "pairs-*"):
        texts[row["uid"]] = {name: row[name] for name in ("caption", "url", "license")}
    kept = [uid for uid, verdict in verdicts.items() if verdict.pop("keep")]
    return [{**verdicts[u], **texts[u], **images[verdicts[u]["image_uid"]]} for u in in_order(kept, seed)]


def rows_of(artifacts: Sequence[Artifact], pattern: str) -> Iterator[dict[str, Any]]:
    for artifact in artifacts:
        for name in artifact.names(pattern):
            yield from pq.read_table(artifact.path(name)).to_pylist()


def gathered(inputs: Any, seed: int, scratch: Path, rows_per_bucket: int) -> OrderedSamples:
    samples = samples_of(inputs["verdicts"][0], str(scratch), rows_per_bucket)
    gather(inputs, seed, samples)
    return samples


def all_rows(samples: OrderedSamples) -> list[dict[str, Any]]:
    sizes = [len(lengths) for lengths in samples.lengths()]
    return list(samples.rows([(bucket, 0, size) for bucket, size in enumerate(sizes)]))


@pytest.mark.parametrize("range_rows", [1, 15, 1000])
@pytest.mark.parametrize("rows_per_bucket", [2, 7, 1000])
def test_samples_are_the_same_for_ranges_and_buckets_of_any_size(
    world: Any, tmp_path: Path, range_rows: int, rows_per_bucket: int
) -> None:
    dropped = sorted(world.captions)[::5]
    repeats = {sorted(world.captions)[1]: 3}
    inputs = world.inputs(drop=dropped, repeats=repeats, range_rows=range_rows)
    whole = expected(inputs, seed=3)
    assert len(whole) == len(world.captions) - len(dropped)
    samples = gathered(inputs, 3, tmp_path / "scratch", rows_per_bucket)
    assert samples.buckets == -(-len(world.captions) // rows_per_bucket)
    assert all_rows(samples) == whole
    assert np.concatenate(list(samples.lengths())).tolist() == [row["length"] for row in whole]
    assert sorted(os.listdir(samples.folder)) == sorted(
        name.format(bucket)
        for bucket in range(samples.buckets)
        for name in ("samples-{:05}.arrow", "lengths-{:05}.npy")
    )


def test_samples_are_the_same_when_ray_gathers_them(world: Any, tmp_path: Path, ray_session: None) -> None:
    inputs = world.inputs()
    assert all_rows(gathered(inputs, 0, tmp_path / "scratch", 9)) == expected(inputs, 0)


def test_shards_are_equal_for_ranges_and_buckets_of_any_size(
    world: Any, shard: Callable[..., Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    for range_rows, rows_per_bucket in ((1, 4), (1000, 1000)):
        monkeypatch.setattr(gathering, "ROWS_PER_BUCKET", rows_per_bucket)
        made.append(shard(world.inputs(range_rows=range_rows)).manifest["files"])
    assert made[0] == made[1]
    assert len(made[0]) > 4


def test_a_plan_that_was_interrupted_goes_on_where_it_was(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gathering, "tasks_for", lambda calls: InProcess())
    inputs = world.inputs()
    samples = samples_of(inputs["verdicts"][0], str(tmp_path), 6)
    made: list[Any] = []

    def until(limit: int) -> None:
        for name in ("_gather_range", "_sort_bucket"):
            monkeypatch.setattr(gathering, name, counted(getattr(gathering, name), limit))

    def counted(function: Callable[..., None], limit: int) -> Callable[..., None]:
        def call(*words: Any) -> None:
            if len(made) == limit:
                raise KeyboardInterrupt
            made.append(words)
            function(*words)

        return call

    steps = 4 + samples.buckets  # two parts of two sources, each a range
    for limit in (2, 5, steps):
        with monkeypatch.context() as monkeypatch:
            until(limit)
            if limit < steps:
                with pytest.raises(KeyboardInterrupt):
                    gather(inputs, 0, samples)
            else:
                gather(inputs, 0, samples)
                gather(inputs, 0, samples)
    assert len(made) == steps
    assert all_rows(samples) == expected(inputs, 0)


def test_of_kept_pairs_without_text_or_image_the_first_is_named(world: Any, tmp_path: Path) -> None:
    lost = ["f" * 32, "0" * 31 + "1"]
    with pytest.raises(UserError, match=rf"shard: verdicts keep pair {lost[1]}, but .* run select again"):
        gathered(world.inputs(extra=lost), 0, tmp_path / "a", 100)
    inputs = world.inputs()
    (forgotten,) = pq.read_table(inputs["raw"][0].path("attempts-00000.parquet"))["image_uid"].to_pylist()[:1]
    table = pq.read_table(inputs["raw"][0].path("attempts-00000.parquet"))
    pq.write_table(table.slice(1), inputs["raw"][0].path("attempts-00000.parquet"))
    pairs = pq.read_table(inputs["pairs"][0].path("pairs-00000.parquet")).to_pylist()
    mine = min(row["uid"] for row in pairs if row["image_uid"] == forgotten)
    with pytest.raises(UserError, match=f"keep pair {mine}, but"):
        gathered(inputs, 0, tmp_path / "b", 100)


def test_verdicts_may_be_on_pairs_that_are_no_longer_listed(world: Any, tmp_path: Path) -> None:
    inputs = world.inputs(drop=sorted(world.captions)[:3])
    for pairs in inputs["pairs"]:
        for name in pairs.names("pairs-*"):
            table = pq.read_table(pairs.path(name))
            gone = pa.compute.is_in(table["uid"], value_set=pa.array(sorted(world.captions)[:3]))
            pq.write_table(table.filter(pa.compute.invert(gone)), pairs.path(name))
    assert [r["uid"] for r in all_rows(gathered(inputs, 0, tmp_path, 9))] == in_order(sorted(world.captions)[3:], 0)


def test_reasons_are_counted_over_all_ranges(world: Any) -> None:
    inputs = world.inputs(drop=set(world.captions), range_rows=7)
    assert f"none of the {len(world.captions)} pairs is kept (rule.min_words" in why_nothing_is_kept(inputs)


def test_verdicts_of_an_earlier_version_are_refused(world: Any, tmp_path: Path) -> None:
    inputs = world.inputs()
    Path(inputs["verdicts"][0].url, "ranges.json").unlink()
    with pytest.raises(UserError, match="run select again"):
        gathered(inputs, 0, tmp_path, 9)


def test_what_a_stopped_removal_left_of_a_plan_is_made_again(world: Any, tmp_path: Path) -> None:
    inputs = world.inputs()
    samples = gathered(inputs, 0, tmp_path, 6)
    samples._table(1).unlink()
    assert samples.missing() == [1]
    exchange = samples.folder / "exchange"
    exchange.mkdir()
    np.save(exchange / "0000000.npy", np.zeros(samples.buckets + 1, np.int64))
    assert all_rows(gathered(inputs, 0, tmp_path, 6)) == expected(inputs, 0)
