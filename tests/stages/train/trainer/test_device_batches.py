"""Batches reach the device one ahead, with what was replaced in them, and give back the workers' memory."""

from __future__ import annotations

import gc
from typing import Any

import torch

from stages.train.data.loader import Loader
from stages.train.trainer.device_batches import DeviceBatches

CPU = torch.device("cpu")


def test_batches_are_those_of_the_loader_with_pixels_in_the_precision_of_training(numbers: Any, settings: Any) -> None:
    for workers in (0, 1):
        loader = Loader(numbers(30), settings.model_copy(update={"loader_workers": workers}), 8, 0, 1, 4)
        loaded = loader.batches(0, 3)
        batches = DeviceBatches(loaded, loader.take_replaced, CPU, torch.bfloat16)
        for step in range(3):
            for micro_step in range(4):
                taken = batches.take()
                batches.prefetch()
                expected: dict[str, Any] = dict(loader.micro_batch(step, micro_step))
                expected["pixels"] = expected["pixels"].to(torch.bfloat16)
                assert taken.batch.keys() == expected.keys()
                for name, value in expected.items():
                    assert torch.equal(torch.as_tensor(taken.batch[name]), torch.as_tensor(value)), name
        loaded.close()
        loader.close()


def test_a_slot_of_the_workers_is_free_again_once_its_batch_is_gone(numbers: Any, settings: Any) -> None:
    loader = Loader(numbers(30), settings.model_copy(update={"loader_workers": 1}), 8, 0, 1, 4)
    loaded = loader.batches(0, 2)
    batches = DeviceBatches(loaded, loader.take_replaced, CPU, torch.float32)
    for _ in range(8):
        taken = batches.take()
        pixels = taken.batch["pixels"].clone()
        batches.prefetch()
        assert torch.equal(taken.batch["pixels"], pixels)  # not filled again while it is in use
    del taken, batches
    loaded.close()
    gc.collect()
    assert loader._pool is not None
    assert len(loader._free) == loader._pool.layout.slots
    loader.close()
