"""From a decoded image to the model's pixels: varied for training, plain for evaluation. No torch here.

OpenCV does the work; processes that prepare many images side by side call `cv2.setNumThreads(1)` first.
"""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stages.train.config import AugmentationConfig, ColorJitterConfig
from stages.train.data.crop import Crop
from stages.train.data.decode import SHRINKS

#: Tries at a crop of random shape (torchvision's number).
TRIES = 10
#: Luminance of red, green, blue: ITU-R 601-2, as Pillow and torchvision weigh them.
GREY = (0.299, 0.587, 0.114)
# Measured on 130 COCO photographs at 224 pixels, against the whole image decoded and resized by Pillow's antialiased
# bicubic: 36.5 dB for crops of half the image and more, 40 dB for crops of 8% and more. With 0.9 and 1.8 it would be
# one decibel more, and 0.05 ms per image.
# An image at half scale is enough when it lacks at most this share of the pixels of the result, per axis.
_ENOUGH = 0.85
# From this number of source pixels per target pixel on, several points of an axis are averaged. Below, bilinear's own
# two pixels hide most of what lies between points.
_DOUBLED = 2.0
_room = threading.local()


def sample_random(seed: int, epoch: int, uid: str) -> random.Random:
    """The random generator of one sample in one epoch, independent of process and time."""
    return random.Random(f"{seed}:{epoch}:{uid}")


def normalized(image: Image.Image, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """float32 [3, height, width] of an RGB image: pixels / 255, minus `mean`, over `std`, per channel."""
    pixels = np.asarray(image, dtype=np.float32)
    scale, shift = _scale_and_shift(mean, std)
    return np.ascontiguousarray((pixels * scale - shift).transpose(2, 0, 1))


def evaluation_transform(image: Image.Image, size: int, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """float32 [3, size, size]: the whole image resized (bicubic, aspect ratio not kept, as BLIP-2 does), normalised."""
    image = image.convert("RGB")
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BICUBIC)
    return normalized(image, mean, std)


def draws_flip(config: AugmentationConfig, seed: int, epoch: int, sample_seed: str) -> bool:
    """Whether :func:`draw_crop` flips a sample's image, if it may be flipped, without the image."""
    if not 0 < config.horizontal_flip < 1:
        return config.horizontal_flip > 0
    return _tries_and_flip(config, sample_random(seed, epoch, sample_seed))[1]


def draw_crop(
    width: int,
    height: int,
    boxes: NDArray[np.float32] | None,
    flippable: bool,
    config: AugmentationConfig,
    draw: random.Random,
) -> Crop:
    """A random crop of a `width` x `height` image, flipped or not.

    Boxes, float32 [n, 4] of left, top, right, bottom in pixels, are inside the crop, whole, as far as they are inside
    the image. As many numbers are drawn whatever the arguments are, so no sample's colours depend on its boxes.
    """
    tries, flipped = _tries_and_flip(config, draw)
    crop = _crop(width, height, _hull(width, height, boxes), config, tries)
    return Crop(width, height, crop, flipped and flippable)


def _tries_and_flip(
    config: AugmentationConfig, draw: random.Random
) -> tuple[list[tuple[float, float, float, float]], bool]:
    """The numbers that place a crop, in the order in which they are tried, and whether it is flipped."""
    tries = [(draw.random(), draw.random(), draw.random(), draw.random()) for _ in range(TRIES)]
    return tries, draw.random() < config.horizontal_flip


def training_pixels(
    decoded: Callable[[int], NDArray[np.uint8]],
    crop: Crop,
    size: int,
    config: AugmentationConfig,
    mean: Sequence[float],
    std: Sequence[float],
    draw: random.Random,
    out: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """float32 [3, size, size]: what the crop shows, with its colours varied as configured, normalised.

    `decoded(shrink)` gives the image as `decode.decode` does: uint8 [height, width, 3], scaled down by 1, 2, 4 or 8; it
    is called for the smallest that still has nearly a pixel for each pixel of the result, if the image is large enough,
    and what it returns is not written to. Writes into `out`, C-contiguous, where it is given. The crop of a whole image
    of the model's size gives what `evaluation_transform` gives, to the bit, where colours are left alone.
    """
    if out is None:
        out = np.empty((3, size, size), dtype=np.float32)
    left, top, right, bottom = crop.box
    shrink = max(s for s in SHRINKS if s == 1 or min(right - left, bottom - top) >= _ENOUGH * s * size)
    pixels: Any = _resized(decoded(shrink), tuple(edge / shrink for edge in crop.box), size)
    if crop.flipped:
        pixels = cv2.flip(pixels, 1)
    change = _color_change(pixels, config.color_jitter, draw)
    if change is not None:
        pixels = cv2.transform(pixels, change)
    planes = _planes(size)
    cv2.split(pixels, planes)
    for plane, table, channel in zip(planes, _tables(tuple(mean), tuple(std)), out, strict=True):
        cv2.LUT(plane, table, channel)
    return out


def _crop(
    width: int,
    height: int,
    hull: tuple[int, int, int, int] | None,
    config: AugmentationConfig,
    tries: Sequence[tuple[float, float, float, float]],
) -> tuple[int, int, int, int]:
    """Inception's random resized crop (Szegedy et al. 2014), around the hull of the boxes where there is one.

    The first try counts that fits the image and holds the hull; otherwise it is the largest crop of an allowed shape,
    as central as the hull allows, and of another shape only if the hull is. Edges lie at even pixels or the image's
    own, so that they lie between no pixels of the image at half its size.
    """
    if config.crop_scale == (1.0, 1.0):
        return (0, 0, width, height)
    first_x, first_y, last_x, last_y = hull or (width, height, 0, 0)
    least_w, least_h = max(1, last_x - first_x), max(1, last_y - first_y)
    smallest, largest = config.crop_scale
    low, high = (math.log(ratio) for ratio in config.crop_ratio)

    def even(left: int, top: int, w: int, h: int) -> tuple[int, int, int, int]:
        right, bottom = left + w, top + h
        return (left - left % 2, top - top % 2, min(width, right + right % 2), min(height, bottom + bottom % 2))

    def at(w: int, h: int, x: float, y: float) -> tuple[int, int, int, int]:
        from_x, to_x = max(0, last_x - w), min(first_x, width - w)
        from_y, to_y = max(0, last_y - h), min(first_y, height - h)
        left, top = from_x + int(x * (to_x - from_x + 1)), from_y + int(y * (to_y - from_y + 1))
        return even(left, top, w, h)

    for share, shape, x, y in tries:
        area = width * height * (smallest + (largest - smallest) * share)
        ratio = math.exp(low + (high - low) * shape)
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if least_w <= w <= width and least_h <= h <= height:
            return at(w, h, x, y)
    ratio = min(max(width / height, config.crop_ratio[0]), config.crop_ratio[1])
    w = max(least_w, min(width, max(1, round(height * ratio))))
    h = max(least_h, min(height, max(1, round(width / ratio))))
    left = min(max((width - w) // 2, last_x - w, 0), first_x, width - w)
    top = min(max((height - h) // 2, last_y - h, 0), first_y, height - h)
    return even(left, top, w, h)


def _hull(width: int, height: int, boxes: NDArray[np.float32] | None) -> tuple[int, int, int, int] | None:
    """The smallest rectangle of whole pixels that holds what is inside the image of all boxes; None if nothing is."""
    if boxes is None or not len(boxes):
        return None
    left, top = np.maximum(np.floor(boxes[:, :2].min(axis=0)), 0)
    right, bottom = np.minimum(np.ceil(boxes[:, 2:].max(axis=0)), (width, height))
    if left >= right or top >= bottom:
        return None
    return (int(left), int(top), int(right), int(bottom))


def _resized(image: NDArray[np.uint8], crop: tuple[float, ...], size: int) -> Any:
    """uint8 [size, size, 3]: a crop, its edges perhaps between pixels, resized.

    Bilinear, with the mean of several points per pixel along an axis that shrinks much; bicubic where both grow.
    """
    left, top, right, bottom = crop
    across, down = (right - left) / size, (bottom - top) / size
    if across == down == 1 and not (left % 1 or top % 1):
        return image[int(top) : int(bottom), int(left) : int(right)]
    wide, high = _points(across), _points(down)
    grid = (wide * size, high * size)
    made: Any
    if any(edge % 1 for edge in crop):
        # Only of an image that was scaled down. Rounding would shift what is seen by up to half a pixel.
        across, down = across / wide, down / high
        matrix = np.array([[across, 0, left + across / 2 - 0.5], [0, down, top + down / 2 - 0.5]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        made = cv2.warpAffine(image, matrix, grid, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    else:
        part = image[int(top) : int(bottom), int(left) : int(right)]
        made = cv2.resize(part, grid, interpolation=cv2.INTER_CUBIC if max(across, down) <= 1 else cv2.INTER_LINEAR)
    if wide == high == 1:
        return made
    if wide == 1 and high == 2:
        rows = made.reshape(size, 2, size * 3)
        return cv2.addWeighted(rows[:, 0], 0.5, rows[:, 1], 0.5, 0).reshape(size, size, 3)
    # At exactly half the size bilinear is the mean of the pixels it lies between, and quicker than INTER_AREA.
    mean = cv2.INTER_LINEAR if max(wide, high) == 2 else cv2.INTER_AREA
    return cv2.resize(made, (size, size), interpolation=mean)


def _points(factor: float) -> int:
    """Points per target pixel along an axis that shrinks by a factor: no pixel is passed over."""
    return 1 if factor <= _DOUBLED else max(2, math.ceil(factor / 2))


def _color_change(pixels: Any, config: ColorJitterConfig, draw: random.Random) -> NDArray[np.float32] | None:
    """float32 [3, 4]: brightness, contrast and saturation, in this order, as one affine map of RGB; None for none.

    `pixels` is uint8 [height, width, 3].

    As torchvision defines them: each blends the image with black, with the mean of its grey, and with its own grey. But
    colours are cut to their range once, at the end, instead of after each.
    """
    brightness, contrast, saturation = (
        1 + change * (2 * draw.random() - 1) for change in (config.brightness, config.contrast, config.saturation)
    )
    if brightness == contrast == saturation == 1:
        return None
    gain, offset = brightness * contrast, 0.0
    if contrast != 1:
        # Blending with one's own grey leaves a grey as it is.
        # Of a row of pixels that share one memory: OpenCV's sum of a crop with gaps takes several times as long.
        sums = cv2.sumElems(np.ascontiguousarray(pixels))
        grey = sum(3 * weight * total / pixels.size for weight, total in zip(GREY, sums[:3], strict=True))
        offset = (1 - contrast) * brightness * grey
    own = [gain * (1 - saturation) * weight for weight in GREY]
    rows = [[own[j] + gain * saturation * (i == j) for j in range(3)] + [offset] for i in range(3)]
    return np.array(rows, dtype=np.float32)


def _scale_and_shift(mean: Sequence[float], std: Sequence[float]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What 8-bit values are multiplied with, and what is then subtracted; float32 [3] each."""
    spread = np.asarray(std, dtype=np.float32)
    scale = np.float32(1) / (np.float32(255) * spread)
    return scale.astype(np.float32), (np.asarray(mean, dtype=np.float32) / spread).astype(np.float32)


def _planes(size: int) -> list[NDArray[np.uint8]]:
    """Room for three channels, uint8 [size, size] each, of this thread's own: new room costs as much as filling it."""
    if getattr(_room, "size", None) != size:
        _room.size, _room.planes = size, [np.empty((size, size), dtype=np.uint8) for _ in range(3)]
    planes: list[NDArray[np.uint8]] = _room.planes
    return planes


@lru_cache(maxsize=8)
def _tables(mean: tuple[float, ...], std: tuple[float, ...]) -> tuple[NDArray[np.float32], ...]:
    """Per channel, float32 [256]: what each 8-bit value is normalised to."""
    scale, shift = _scale_and_shift(mean, std)
    values = np.arange(256, dtype=np.float32)
    return tuple(values * scale[channel] - shift[channel] for channel in range(3))
