"""Images on their way into the model."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from stages.train.augment import crop_box, evaluation_transform, sample_random, training_transform
from stages.train.config import AugmentationConfig, ColorJitterConfig

ZERO, ONE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


@pytest.fixture
def noise() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8))


def test_evaluation_normalises_each_channel() -> None:
    image = Image.new("RGB", (4, 4), (255, 0, 51))
    pixels = evaluation_transform(image, 4, (0.5, 0.25, 0.1), (0.5, 0.5, 0.2))
    assert pixels.shape == (3, 4, 4)
    assert pixels.dtype == np.float32
    np.testing.assert_allclose(pixels[:, 0, 0], [1.0, -0.5, 0.5], atol=1e-6)


def test_evaluation_takes_any_mode_and_size() -> None:
    for mode in ("L", "RGBA", "P", "CMYK"):
        assert evaluation_transform(Image.new(mode, (9, 5)), 8, ZERO, ONE).shape == (3, 8, 8)


def test_without_augmentation_training_sees_what_evaluation_sees(noise: Image.Image) -> None:
    plain = training_transform(noise, 16, ZERO, ONE, AugmentationConfig(), sample_random(0, 0, "a"))
    np.testing.assert_array_equal(plain, evaluation_transform(noise, 16, ZERO, ONE))


def test_randomness_depends_on_seed_epoch_and_uid_alone(noise: Image.Image) -> None:
    jitter = ColorJitterConfig(brightness=0.4, contrast=0.4, saturation=0.4)
    config = AugmentationConfig(crop_scale=(0.2, 0.9), horizontal_flip=0.5, color_jitter=jitter)

    def made(*key: int | str) -> np.ndarray:
        random.seed()  # what else the process drew must not matter
        return training_transform(noise, 16, ZERO, ONE, config, sample_random(*key))  # type: ignore[arg-type]

    np.testing.assert_array_equal(made(0, 1, "a"), made(0, 1, "a"))
    for other in [(1, 1, "a"), (0, 2, "a"), (0, 1, "b")]:
        assert not np.array_equal(made(0, 1, "a"), made(*other))


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 500), st.integers(1, 500), st.floats(0.01, 0.99), st.randoms())
def test_crops_lie_inside_the_image(width: int, height: int, low: float, draw: random.Random) -> None:
    left, top, right, bottom = crop_box(width, height, AugmentationConfig(crop_scale=(low, 1.0)), draw)
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height


def test_mirroring_mirrors() -> None:
    image = Image.new("RGB", (2, 2))
    image.putpixel((0, 0), (255, 255, 255))
    config = AugmentationConfig(horizontal_flip=1.0)
    assert training_transform(image, 2, ZERO, ONE, config, random.Random(0))[0].tolist() == [[0, 1], [0, 0]]
