"""One sample made ready for the model: read, decoded, augmented, and replaced where it is damaged.

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
from stages.train.data.augment import draw_view, sample_random, training_pixels
from stages.train.data.dataset import DamagedSample, Dataset, Sample, Text
from stages.train.data.decode import decode, image_size

#: Samples drawn in search of one of the same source that fits, and of one that is whole, before giving up.
_DRAWS, _DAMAGED = 10_000, 100


@dataclass(frozen=True)
class Replaced:
    """A sample that could not be used, and which one was used in its place."""

    epoch: int
    uid: str
    reason: str
    by: str
    """uid of the other sample."""


@dataclass(frozen=True)
class Prepared:
    """What there is of a sample besides its pixels."""

    image_id: int
    texts: tuple[Text, ...]
    replaced: Replaced | None = None


@dataclass(frozen=True)
class Preparation:
    """The settings that decide a sample's pixels."""

    seed: int
    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    augmentation: AugmentationConfig
    corrupt_samples: Literal["replace", "stop"] = "replace"


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


class Preparer:
    """(epoch, number) -> pixels and texts. A pure function of data set and settings; a copy works in each worker."""

    def __init__(self, dataset: Dataset, settings: Preparation, cache_mb: int = 0) -> None:
        self.dataset = dataset
        self.settings = settings
        self._cache = ImageCache(cache_mb)

    def __call__(self, epoch: int, number: int, out: NDArray[np.float32]) -> Prepared:
        """Write the pixels, float32 [3, size, size], into `out` and return the rest.

        A damaged sample's place is taken by another one of its source, drawn from (seed, epoch, number) among those
        whose texts are no longer than its own: all ranks have agreed on lengths by then. Raises UserError when the
        settings say to stop instead, or when a hundred samples drawn one after the other are damaged too.
        """
        try:
            return self._prepared(epoch, number, out)
        except DamagedSample as error:
            damage = error
        if self.settings.corrupt_samples == "stop":
            raise UserError(
                f"{damage}; training stops there as corrupt_samples=stop says: `pairmill check-shards` finds all there "
                "are, corrupt_samples=replace goes on without them"
            )
        draws = sample_random(self.settings.seed, epoch, f"instead of {number}")
        fitting = self.dataset.lengths(number, epoch)
        for _ in range(_DAMAGED):
            other = self._drawn(draws, epoch, self.dataset.source(number), fitting)
            try:
                made = self._prepared(epoch, other, out, fitting)
            except DamagedSample:
                continue
            told = Replaced(epoch, damage.uid or f"number {number}", str(damage), self._uid(other, epoch))
            return Prepared(made.image_id, made.texts, told)
        raise UserError(f"{damage}; {_DAMAGED} others drawn in its place are damaged too: run `pairmill check-shards`")

    def _prepared(
        self, epoch: int, number: int, out: NDArray[np.float32], fitting: tuple[int, int] | None = None
    ) -> Prepared:
        settings = self.settings
        sample = self.dataset.sample(number, epoch)
        draw = sample_random(settings.seed, epoch, sample.seed)
        try:
            width, height = image_size(sample.image)
            view = draw_view(width, height, sample.boxes, sample.mirrorable, settings.augmentation, draw)
            decoded = partial(self._cache.get, number, partial(decode, sample.image))
            training_pixels(
                decoded, view, settings.image_size, settings.augmentation, settings.mean, settings.std, draw, out
            )
        except DamagedSample as error:
            raise DamagedSample(f"uid {sample.uid}: {error}", sample.uid) from error
        texts = sample.texts(view)
        return Prepared(sample.image_id, tuple(_cut(t, *fitting) for t in texts) if fitting else texts)

    def _drawn(self, draws: random.Random, epoch: int, source: str, fitting: tuple[int, int]) -> int:
        """A sample of the source that fits; in vain, one of the source, whose text is then cut; in vain, any."""
        best, other = -1, 0
        for _ in range(_DRAWS):
            other = draws.randrange(len(self.dataset))
            if self.dataset.source(other) != source:
                continue
            best = other
            prompt, target = self.dataset.lengths(other, epoch)
            if prompt <= fitting[0] and target <= fitting[1]:
                break
        return best if best >= 0 else other

    def _uid(self, number: int, epoch: int) -> str:
        sample: Sample = self.dataset.sample(number, epoch)
        return sample.uid


def _cut(text: Text, prompt: int, target: int) -> Text:
    # A prompt loses its beginning and a target its middle: its last id ends the text.
    kept = text.target if len(text.target) <= target else np.append(text.target[: target - 1], text.target[-1])
    return Text(text.prompt[len(text.prompt) - prompt :] if len(text.prompt) > prompt else text.prompt, kept)
