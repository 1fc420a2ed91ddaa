"""Images on their way into the model."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from stages.train.config import AugmentationConfig, ColorJitterConfig
from stages.train.data.augment import draw_crop, evaluation_transform, sample_random, training_pixels
from stages.train.data.crop import Crop
from stages.train.data.decode import decode, image_size

ZERO, ONE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PLAIN = AugmentationConfig()


@pytest.fixture
def noise() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8))


def lossless(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def decoder(data: bytes) -> Callable[[int], np.ndarray]:
    return lambda shrink: decode(data, shrink)


def made(data: bytes, config: AugmentationConfig, draw: random.Random, size: int = 16) -> np.ndarray:
    """As the loader does it."""
    crop = draw_crop(*image_size(data), None, True, config, draw)
    return training_pixels(decoder(data), crop, size, config, ZERO, ONE, draw)


def test_evaluation_normalises_each_channel() -> None:
    image = Image.new("RGB", (4, 4), (255, 0, 51))
    pixels = evaluation_transform(image, 4, (0.5, 0.25, 0.1), (0.5, 0.5, 0.2))
    assert pixels.shape == (3, 4, 4)
    assert pixels.dtype == np.float32
    np.testing.assert_allclose(pixels[:, 0, 0], [1.0, -0.5, 0.5], atol=1e-6)


def test_evaluation_takes_any_mode_and_size() -> None:
    for mode in ("L", "RGBA", "P", "CMYK"):
        assert evaluation_transform(Image.new(mode, (9, 5)), 8, ZERO, ONE).shape == (3, 8, 8)


def test_without_augmentation_and_resizing_training_sees_what_evaluation_sees_to_the_bit(noise: Image.Image) -> None:
    square = noise.resize((16, 16))
    out = np.full((3, 16, 16), np.nan, dtype=np.float32)
    draw = sample_random(0, 0, "a")
    crop = draw_crop(16, 16, None, True, PLAIN, draw)
    assert crop == Crop.whole(16, 16)
    assert training_pixels(decoder(lossless(square)), crop, 16, PLAIN, MEAN, STD, draw, out) is out
    np.testing.assert_array_equal(out, evaluation_transform(square, 16, MEAN, STD))


def test_randomness_depends_on_seed_epoch_and_uid_alone(noise: Image.Image) -> None:
    jitter = ColorJitterConfig(brightness=0.4, contrast=0.4, saturation=0.4)
    config = AugmentationConfig(crop_scale=(0.2, 0.9), horizontal_flip=0.5, color_jitter=jitter)
    data = lossless(noise)

    def of(*key: int | str) -> np.ndarray:
        random.seed()  # what else the process drew must not matter
        return made(data, config, sample_random(*key))  # type: ignore[arg-type]

    np.testing.assert_array_equal(of(0, 1, "a"), of(0, 1, "a"))
    for other in [(1, 1, "a"), (0, 2, "a"), (0, 1, "b")]:
        assert not np.array_equal(of(0, 1, "a"), of(*other))


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 500), st.integers(1, 500), st.floats(0.01, 0.99), st.randoms())
def test_crops_lie_inside_the_image(width: int, height: int, low: float, draw: random.Random) -> None:
    left, top, right, bottom = draw_crop(width, height, None, True, AugmentationConfig(crop_scale=(low, 1.0)), draw).box
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height


def test_crops_have_the_areas_shapes_and_places_that_are_asked_for() -> None:
    config = AugmentationConfig(crop_scale=(0.1, 0.3), crop_ratio=(0.5, 2.0))
    draw = random.Random(0)
    crops = np.array([draw_crop(600, 400, None, True, config, draw).box for _ in range(2000)], dtype=float)
    w, h = crops[:, 2] - crops[:, 0], crops[:, 3] - crops[:, 1]
    area = w * h / 240_000
    assert area.min() > 0.095
    assert area.max() < 0.315
    assert abs(area.mean() - 0.2) < 0.005
    assert 0.47 < (w / h).min() < 0.55
    assert 1.8 < (w / h).max() < 2.1
    assert abs((crops[:, 0] / (600 - w)).mean() - 0.5) < 0.02


def test_no_draw_moves_when_another_augmentation_is_turned_on_or_off() -> None:
    """So a change of one setting leaves what the others make of a sample."""
    boxes = np.array([[0, 0, 40, 30]], dtype=np.float32)
    states = set()
    for config in (PLAIN, AugmentationConfig(crop_scale=(0.1, 0.2), horizontal_flip=0.5)):
        for own in (None, boxes):
            draw = random.Random(3)
            crop = draw_crop(40, 30, own, False, config, draw)
            assert not crop.flipped
            training_pixels(lambda s: np.zeros((30, 40, 3), np.uint8), crop, 8, config, ZERO, ONE, draw)
            states.add(draw.getstate())
    assert len(states) == 1


def test_mirroring_mirrors_unless_the_texts_forbid_it() -> None:
    image = Image.new("RGB", (2, 2))
    image.putpixel((0, 0), (255, 255, 255))
    config = AugmentationConfig(horizontal_flip=1.0)
    assert made(lossless(image), config, random.Random(0), 2)[0].tolist() == [[0, 1], [0, 0]]
    assert not draw_crop(2, 2, None, False, config, random.Random(0)).flipped


def test_colours_change_as_pillow_and_torchvision_define_it() -> None:
    y, x = np.mgrid[0:32, 0:32]
    image = Image.fromarray(np.stack([60 + x * 2, 90 + y * 2, 140 - x], axis=-1).astype(np.uint8))
    jitter = ColorJitterConfig(brightness=0.2, contrast=0.3, saturation=0.4)
    config = AugmentationConfig(color_jitter=jitter)
    for seed in range(5):
        pixels = training_pixels(
            decoder(lossless(image)), Crop.whole(32, 32), 32, config, ZERO, ONE, random.Random(seed)
        )
        draw, expected = random.Random(seed), image
        for change, enhance in (
            (0.2, ImageEnhance.Brightness),
            (0.3, ImageEnhance.Contrast),
            (0.4, ImageEnhance.Color),
        ):
            expected = enhance(expected).enhance(1 + change * (2 * draw.random() - 1))
        # Pillow cuts to whole numbers after each step.
        assert np.abs(pixels.transpose(1, 2, 0) * 255 - np.asarray(expected)).max() <= 3.01


def test_the_smallest_scale_that_is_sharp_enough_is_decoded_and_shows_the_same() -> None:
    """Wherever a crop lies, also between the pixels of the smaller image."""
    y, x = np.mgrid[0:411, 0:523]
    image = Image.fromarray(
        (127 + 60 * np.sin(x / 40)[..., None] + 60 * np.cos(y / 50)[..., None] * [1, -1, 0.5]).astype(np.uint8)
    )
    data = lossless(image)
    for size, crop, expected in (
        (32, (3, 5, 500, 401), 8),
        (32, (101, 53, 232, 183), 4),
        (64, (33, 55, 170, 191), 2),
        (64, (33, 55, 137, 171), 1),
        (300, (33, 55, 147, 171), 1),
        (64, (0, 0, 523, 411), 4),
        (100, (10, 20, 400, 160), 1),
    ):
        shrinks: list[int] = []

        def decoded(shrink: int, shrinks: list[int] = shrinks) -> np.ndarray:
            shrinks.append(shrink)
            return decode(data, shrink)

        pixels = training_pixels(decoded, Crop(523, 411, crop), size, PLAIN, ZERO, ONE, random.Random(0))
        assert shrinks == [expected]
        reference = image.resize((size, size), Image.Resampling.BICUBIC, box=crop)
        difference = np.abs(pixels.transpose(1, 2, 0) * 255 - np.asarray(reference))
        assert difference.mean() < 1.2, (size, crop)


@pytest.mark.parametrize("crop", [(0, 0, 1500, 130), (0, 0, 1499, 129), (4, 0, 68, 130)])
def test_no_pixel_is_passed_over_however_narrow_an_image_is(crop: tuple[int, int, int, int]) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (130, 1500, 3), dtype=np.uint8))
    pixels = training_pixels(decoder(lossless(image)), Crop(1500, 130, crop), 64, PLAIN, ZERO, ONE, random.Random(0))
    reference = np.asarray(image.resize((64, 64), Image.Resampling.HAMMING, box=crop), dtype=float)
    # Of noise a sparse sampling would keep all of the spread, and differ by about 60.
    assert np.abs(pixels.transpose(1, 2, 0) * 255 - reference).mean() < 12


def test_cached_images_are_not_written_to(noise: Image.Image) -> None:
    image = np.array(noise)
    image.setflags(write=False)
    config = AugmentationConfig(horizontal_flip=1.0, color_jitter=ColorJitterConfig(brightness=0.5))
    for crop in (Crop(30, 20, (0, 0, 16, 16), True), Crop(30, 20, (0, 0, 30, 20)), Crop(30, 20, (4, 4, 8, 8))):
        training_pixels(lambda s: image, crop, 16, config, ZERO, ONE, random.Random(0))


def test_photographs_look_as_pillows_antialiased_bicubic_makes_them(shared: Path) -> None:
    """At least 35 dB on average: what the loader's speed costs."""
    ratios: list[Any] = []
    for number, file in enumerate(sorted((shared / "data" / "coco" / "train2017").glob("*.jpg"))[:24]):
        data = file.read_bytes()
        with Image.open(file) as opened:
            image = opened.convert("RGB")
        config = AugmentationConfig(crop_scale=(0.4, 1.0))
        crop = draw_crop(*image.size, None, False, config, random.Random(number))
        pixels = training_pixels(decoder(data), crop, 224, config, ZERO, ONE, random.Random(0))
        reference = np.asarray(image.resize((224, 224), Image.Resampling.BICUBIC, box=crop.box), dtype=float)
        ratios.append(10 * np.log10(255**2 / ((pixels.transpose(1, 2, 0) * 255 - reference) ** 2).mean()))
    assert np.mean(ratios) > 35
    assert min(ratios) > 27
