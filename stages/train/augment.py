"""From a decoded image to the model's pixels: varied for training, plain for evaluation."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageEnhance

from stages.train.config import AugmentationConfig, ColorJitterConfig


def sample_random(seed: int, epoch: int, uid: str) -> random.Random:
    """The randomness of one sample in one epoch, whoever draws it and when."""
    return random.Random(f"{seed}:{epoch}:{uid}")


def normalized(image: Image.Image, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """float32 [3, height, width] of an RGB image: pixels / 255, minus `mean`, over `std`, per channel."""
    pixels = np.asarray(image, dtype=np.float32)
    scale = 1 / (255 * np.asarray(std, dtype=np.float32))
    shift = np.asarray(mean, dtype=np.float32) / np.asarray(std, dtype=np.float32)
    return np.ascontiguousarray((pixels * scale - shift).transpose(2, 0, 1))


def evaluation_transform(image: Image.Image, size: int, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """float32 [3, size, size]: the whole image resized (bicubic, aspect ratio not kept, as BLIP-2 does), normalised."""
    image = image.convert("RGB")
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BICUBIC)
    return normalized(image, mean, std)


def training_transform(
    image: Image.Image,
    size: int,
    mean: Sequence[float],
    std: Sequence[float],
    config: AugmentationConfig,
    draw: random.Random,
) -> np.ndarray:
    """float32 [3, size, size]: random resized crop, mirroring and colour jitter as configured, normalised."""
    image = image.convert("RGB")
    box = crop_box(image.width, image.height, config, draw)
    if box != (0, 0, image.width, image.height) or image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BICUBIC, box=box)
    if draw.random() < config.horizontal_flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return normalized(_jittered(image, config.color_jitter, draw), mean, std)


def crop_box(width: int, height: int, config: AugmentationConfig, draw: random.Random) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of a crop of random area and shape.

    Inception's random resized crop (Szegedy et al. 2014): ten tries at a box that fits, then the largest central one
    of an allowed shape.
    """
    if config.crop_scale == (1.0, 1.0):
        return (0, 0, width, height)
    low, high = (math.log(ratio) for ratio in config.crop_ratio)
    for _ in range(10):
        area = width * height * draw.uniform(*config.crop_scale)
        ratio = math.exp(draw.uniform(low, high))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = draw.randint(0, width - w), draw.randint(0, height - h)
            return (left, top, left + w, top + h)
    ratio = min(max(width / height, config.crop_ratio[0]), config.crop_ratio[1])
    w, h = min(width, max(1, round(height * ratio))), min(height, max(1, round(width / ratio)))
    left, top = (width - w) // 2, (height - h) // 2
    return (left, top, left + w, top + h)


def _jittered(image: Image.Image, config: ColorJitterConfig, draw: random.Random) -> Image.Image:
    for change, enhance in (
        (config.brightness, ImageEnhance.Brightness),
        (config.contrast, ImageEnhance.Contrast),
        (config.saturation, ImageEnhance.Color),
    ):
        if change:
            image = enhance(image).enhance(draw.uniform(1 - change, 1 + change))
    return image
