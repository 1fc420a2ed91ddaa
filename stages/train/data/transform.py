"""From a sample's number to what the model takes: read, decode, augment, and replace where it is damaged.

Runs in the rank's own process or in workers. No torch here.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from stages.base.contract import UserError
from stages.train.config import AugmentationConfig
from stages.train.data.augment import draw_crop, sample_random, training_pixels
from stages.train.data.dataset import DamagedSample, Dataset, TokenizedText, TrainingSample
from stages.train.data.decode import decode, image_size

#: Most samples drawn to find one of the same source that fits, and to find one that is not damaged.
_DRAWS, _DAMAGED = 10_000, 100


@dataclass(frozen=True)
class ReplacedSample:
    """A sample that could not be used, and the one used in its place."""

    epoch: int
    uid: str
    reason: str
    by: str
    """uid of the other sample."""


@dataclass(frozen=True)
class TransformedSample:
    """All of a sample but its pixels."""

    image_id: int
    texts: tuple[TokenizedText, ...]
    replaced: ReplacedSample | None = None


@dataclass(frozen=True)
class TransformSettings:
    """The settings that decide a sample's pixels."""

    seed: int
    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    augmentation: AugmentationConfig
    corrupt_samples: Literal["replace", "stop"] = "replace"
    needs_texts: bool = True
    """Whether a sample may be replaced by one with a text only."""


class ImageCache:
    """Decoded images by sample number and scale, up to a total size; what does not fit is decoded each time.

    Nothing is evicted: with a permuted order every image is equally far from its next use.
    """

    def __init__(self, megabytes: int) -> None:
        self._left = megabytes * 2**20
        self._images: dict[tuple[int, int], NDArray[np.uint8]] = {}

    def get(self, number: int, decoded: Callable[[int], NDArray[np.uint8]], shrink: int) -> NDArray[np.uint8]:
        """uint8 [height, width, 3]: the image scaled down by `shrink`, decoded by the given function the first time."""
        image = self._images.get((number, shrink))
        if image is None:
            image = decoded(shrink)
            if image.nbytes <= self._left:
                self._left -= image.nbytes
                self._images[number, shrink] = image
        return image


class SampleTransform:
    """(epoch, number) -> pixels and texts. A pure function of data set and settings; a copy works in each worker."""

    def __init__(self, dataset: Dataset, settings: TransformSettings, cache_mb: int = 0) -> None:
        self.dataset = dataset
        self.settings = settings
        self._cache = ImageCache(cache_mb)

    def __call__(self, epoch: int, number: int, out: NDArray[np.float32]) -> TransformedSample:
        """Write the pixels, float32 [3, size, size], into `out` and return the rest.

        A damaged sample's place is taken by another one of its source, drawn from (seed, epoch, number) among those
        whose texts are no longer than its own: all ranks have agreed on lengths by then. Raises UserError when the
        settings require to stop instead, or when a hundred samples drawn one after the other are damaged too.
        """
        try:
            return self._transformed(epoch, number, out)
        except DamagedSample as error:
            damage = error
        if self.settings.corrupt_samples == "stop":
            raise UserError(
                f"{damage}; training stops, as corrupt_samples=stop requires: `pairmill check-shards` finds all "
                "damaged samples, corrupt_samples=replace goes on without them"
            )
        draws = sample_random(self.settings.seed, epoch, f"instead of {number}")
        longest = self.dataset.lengths(number, epoch)
        for _ in range(_DAMAGED):
            other = self._draw_other(draws, epoch, number, longest)
            try:
                made = self._transformed(epoch, other, out, longest)
            except DamagedSample:
                continue
            replaced = ReplacedSample(epoch, damage.uid or f"number {number}", str(damage), self._uid(other, epoch))
            return TransformedSample(made.image_id, made.texts, replaced)
        raise UserError(f"{damage}; {_DAMAGED} others drawn in its place are damaged too: run `pairmill check-shards`")

    def _transformed(
        self, epoch: int, number: int, out: NDArray[np.float32], longest: tuple[int, int] | None = None
    ) -> TransformedSample:
        settings = self.settings
        sample = self.dataset.sample(number, epoch)
        draw = sample_random(settings.seed, epoch, sample.seed)
        try:
            width, height = image_size(sample.image)
            crop = draw_crop(width, height, sample.boxes, sample.flippable, settings.augmentation, draw)
            decoded = partial(self._cache.get, number, partial(decode, sample.image))
            training_pixels(
                decoded, crop, settings.image_size, settings.augmentation, settings.mean, settings.std, draw, out
            )
        except DamagedSample as error:
            raise DamagedSample(f"uid {sample.uid}: {error}", sample.uid) from error
        texts = sample.texts(crop)
        return TransformedSample(sample.image_id, tuple(_cut(t, *longest) for t in texts) if longest else texts)

    def _draw_other(self, draws: random.Random, epoch: int, number: int, longest: tuple[int, int]) -> int:
        """A sample of the same source that fits; if none is drawn, any of the source, whose text is then cut; else any
        that may take part."""
        source = self.dataset.source(number)
        left_out = self.dataset.image_only if self.settings.needs_texts else ()
        best, other = -1, number
        for _ in range(_DRAWS):
            drawn = draws.randrange(len(self.dataset))
            source_drawn = self.dataset.source(drawn)
            if source_drawn in left_out:
                continue
            other = drawn
            if source_drawn != source:
                continue
            best = other
            prompt, target = self.dataset.lengths(other, epoch)
            if prompt <= longest[0] and target <= longest[1]:
                break
        return best if best >= 0 else other

    def _uid(self, number: int, epoch: int) -> str:
        sample: TrainingSample = self.dataset.sample(number, epoch)
        return sample.uid


def _cut(text: TokenizedText, prompt: int, target: int) -> TokenizedText:
    # A prompt loses its beginning and a target its middle: its last id ends the text.
    kept = text.target if len(text.target) <= target else np.append(text.target[: target - 1], text.target[-1])
    return TokenizedText(text.prompt[len(text.prompt) - prompt :] if len(text.prompt) > prompt else text.prompt, kept)
