"""Loader workers: real processes, the same batches, and every way they can end."""

from __future__ import annotations

import gc
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from models.common.batch import Batch
from stages.base.artifact import Artifact
from stages.base.contract import UserError
from stages.train.config import OptimizationConfig
from stages.train.data.loader import Loader
from stages.train.data.pairs import PairDataset
from stages.train.trainer.schedule import accumulation_steps

Files = Callable[..., tuple[Artifact, Artifact]]


def loader(files: tuple[Artifact, Artifact], settings: Any, rank: int = 0, world: int = 1, **how: Any) -> Loader:
    changed = settings.model_copy(update=how)
    return Loader(PairDataset(*files, 8), changed, 16, rank, world, accumulation_steps(changed, world, "train"))


def equal(one: Batch, other: Batch) -> bool:
    return all(torch.equal(*map(torch.as_tensor, (one[key], other[key]))) for key in one)  # type: ignore[literal-required]


def test_workers_make_the_batches_one_process_makes(pair_files: Files, settings: OptimizationConfig) -> None:
    files = pair_files([5, 1, 7])  # fewer shards than ranks, and uneven ones
    for rank in (0, 3):
        expected = list(loader(files, settings, rank, 4, prefetch=0).batches(0, 4))
        busy = loader(files, settings, rank, 4, loader_workers=2)
        kept = list(busy.batches(0, 4))  # all kept: more than the workers' memory has room for
        assert all(equal(a, b) for a, b in zip(expected, kept, strict=True))
        again = busy.batches(2, 4)  # the same workers go on elsewhere
        assert equal(next(again), expected[2])
        busy.close()


def test_memory_of_a_batch_is_used_again_only_when_nobody_looks_at_it(pair_files: Files, settings: Any) -> None:
    busy = loader(pair_files([8]), settings, loader_workers=1, prefetch=1)
    held: list[tuple[torch.Tensor, torch.Tensor]] = []
    for turn, batch in enumerate(busy.batches(0, 4)):
        part = batch["pixels"][:1]  # a crop keeps the batch's memory
        held.append((part, part.clone()))
        if turn % 3 == 2:
            assert all(torch.equal(now, then) for now, then in held)
            held.clear()
            del part, batch
            gc.collect()
    busy.close()


def test_a_damaged_image_is_replaced_in_workers_as_it_is_without(pair_files: Files, settings: Any) -> None:
    shards, tokens = pair_files([6, 6])
    damage(shards, number=8)
    plain, busy = (loader((shards, tokens), settings, loader_workers=w) for w in (0, 2))
    for one, other in zip(plain.batches(0, 3), busy.batches(0, 3), strict=True):
        assert equal(one, other)
    busy.close()
    replaced = plain.take_replaced()
    assert replaced
    assert replaced == busy.take_replaced()
    assert {record.uid for record in replaced} == {f"{8:032x}"}
    assert all("train-00001.tar" in record.reason for record in replaced)


def test_a_workers_complaint_to_the_user_reaches_the_rank(pair_files: Files, settings: Any) -> None:
    shards, tokens = pair_files([8])
    damage(shards, number=3)
    strict = loader((shards, tokens), settings, loader_workers=1, corrupt_samples="stop")
    with pytest.raises(UserError, match=f"{3:032x}.*corrupt_samples=stop"):
        list(strict.batches(0, 2))


def test_a_killed_worker_is_an_error_and_no_hang(pair_files: Files, settings: Any) -> None:
    busy = loader(pair_files([8]), settings, loader_workers=2)
    batches = busy.batches(0, 1000)
    next(batches)
    assert busy._pool is not None
    os.kill(busy._pool._workers[1].process.pid, signal.SIGKILL)
    with pytest.raises(RuntimeError, match="a loader worker was killed by signal 9"):
        for _ in batches:
            pass


def test_workers_end_with_their_loader(pair_files: Files, settings: Any) -> None:
    busy = loader(pair_files([8]), settings, loader_workers=2)
    batches = busy.batches(0, 1000)
    next(batches)
    assert busy._pool is not None
    workers = [worker.process for worker in busy._pool._workers]
    del batches, busy
    gc.collect()
    deadline = time.monotonic() + 5
    while any(worker.poll() is None for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert all(worker.poll() is not None for worker in workers)


def damage(shards: Artifact, number: int) -> None:
    """Flip one bit in the middle of a sample's image."""
    from stages.shard.reader import ShardReader

    reader = ShardReader(shards)
    row = reader.index[number]
    path = Path(shards.url, reader.shards[row.shard])
    data = bytearray(path.read_bytes())
    data[row.image_offset + row.image_length // 2] ^= 1
    path.write_bytes(data)
