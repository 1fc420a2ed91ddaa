"""A data set in memory, for tests of orders and batches."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from stages.train.config import AugmentationConfig, OptimizationConfig
from stages.train.dataset import Sample, Text, target_ids


class Numbers:
    """Sample `i` is an 8 x 8 noise image whose only target token is `i + 3`; text lengths differ."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def sample(self, number: int, epoch: int) -> Sample:
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        prompt = np.full(number % 3, 5, dtype=np.int64)
        target = target_ids(np.full(1 + number % 2, number + 3), 8)
        return Sample(str(number), number, Image.fromarray(pixels), (Text(prompt, target),))

    def lengths(self, number: int, epoch: int) -> tuple[int, int]:
        return number % 3, 2 + number % 2


@pytest.fixture
def numbers() -> type[Numbers]:
    return Numbers


@pytest.fixture
def settings() -> OptimizationConfig:
    return OptimizationConfig(
        global_batch=8,
        micro_batch=2,
        seed=3,
        augmentation=AugmentationConfig(crop_scale=(0.3, 1.0), horizontal_flip=0.5),
    )
