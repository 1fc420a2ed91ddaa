"""What every contender does to a photograph, in three ways of doing it; all give float32 [3, 224, 224].

A random resized crop (area 0.5 to 1, shape 3/4 to 4/3), brightness, contrast and saturation by up to 0.2, ImageNet's
normalisation. :func:`pillow` is what torchvision's transforms do to a Pillow image, without their overhead (4% faster
on COCO's photographs); :func:`torchvision_tensor` is for libraries that decode to tensors; :func:`with_our_functions`
is Pairmill's own decoder and augmentation inside a peer's worker.
"""

from __future__ import annotations

import io
import math
import random
from collections.abc import Callable
from functools import cache
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image, ImageEnhance

#: How a peer decodes and augments: the way its documentation shows, or with Pairmill's functions.
Way = Literal["standard", "our_decode"]

SIZE = 224
SCALE = (0.5, 1.0)
RATIO = (3 / 4, 4 / 3)
JITTER = 0.2
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

_FACTOR = (1 / (255 * np.asarray(STD))).astype(np.float32)
_SHIFT = (np.asarray(MEAN) / np.asarray(STD)).astype(np.float32)


def opened(data: bytes) -> Image.Image:
    """An RGB image as Pillow decodes it."""
    return Image.open(io.BytesIO(data)).convert("RGB")


def pillow(image: Image.Image) -> torch.Tensor:
    """Pillow for what changes the image, NumPy for the numbers."""
    image = image.convert("RGB")
    image = image.resize((SIZE, SIZE), Image.Resampling.BICUBIC, box=_crop(*image.size))
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = enhance(image).enhance(random.uniform(1 - JITTER, 1 + JITTER))
    pixels = np.asarray(image, dtype=np.float32) * _FACTOR - _SHIFT
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def torchvision_tensor(image: torch.Tensor) -> torch.Tensor:
    """uint8 [3, height, width] through torchvision's transforms of tensors."""
    varied: torch.Tensor = _torchvision()(image)
    return varied


def with_our_functions(data: bytes, key: str) -> torch.Tensor:
    """JPEG bytes through `stages.train.data.decode` and `stages.train.data.augment`, as Pairmill's workers use them."""
    from functools import partial

    from stages.train.data.augment import draw_crop, sample_random, training_pixels
    from stages.train.data.decode import decode, image_size

    config = _augmentation()
    draw = sample_random(0, 0, key)
    crop = draw_crop(*image_size(data), None, True, config, draw)
    out = np.empty((3, SIZE, SIZE), dtype=np.float32)
    training_pixels(partial(decode, data), crop, SIZE, config, MEAN, STD, draw, out)
    return torch.from_numpy(out)


@cache
def _augmentation() -> Any:
    import cv2

    cv2.setNumThreads(1)  # asked for first in a peer's worker, as our workers do it when they start
    from stages.train.config import AugmentationConfig

    return AugmentationConfig.model_validate(augmentation())


def augmentation() -> dict[str, Any]:
    """The same as keys of a recipe's `augmentation`."""
    jitter = {"brightness": JITTER, "contrast": JITTER, "saturation": JITTER}
    return {"crop_scale": SCALE, "crop_ratio": RATIO, "color_jitter": jitter}


@cache
def _torchvision() -> Callable[[torch.Tensor], torch.Tensor]:
    from torchvision.transforms import InterpolationMode, v2

    composed: Callable[[torch.Tensor], torch.Tensor] = v2.Compose(
        [
            v2.RandomResizedCrop(SIZE, SCALE, RATIO, InterpolationMode.BICUBIC, antialias=True),
            v2.ColorJitter(JITTER, JITTER, JITTER),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )
    return composed


def _crop(width: int, height: int) -> tuple[int, int, int, int]:
    for _ in range(10):
        area = width * height * random.uniform(*SCALE)
        ratio = math.exp(random.uniform(math.log(RATIO[0]), math.log(RATIO[1])))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = random.randint(0, width - w), random.randint(0, height - h)
            return left, top, left + w, top + h
    w, h = min(width, round(height * RATIO[1])), min(height, round(width / RATIO[0]))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h
