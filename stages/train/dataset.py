"""What a training sample is, and what every training data set offers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from PIL import Image

#: The first ids of every tokenizer here (docs/formats.md).
PAD, BOS, EOS = 0, 1, 2


@dataclass(frozen=True)
class Text:
    """One text about an image: int64 token ids."""

    prompt: np.ndarray
    """[prompt_length], no bos, no eos; may be empty."""
    target: np.ndarray
    """[target_length], ends with eos."""


@dataclass(frozen=True)
class Sample:
    """One image and the texts that are learnt with it."""

    uid: str
    """Names the sample in errors and, with `turn`, seeds its augmentation."""
    image_id: int
    """Equal for samples of the same image."""
    image: Image.Image
    """RGB, as stored."""
    texts: tuple[Text, ...]
    """At least one."""
    turn: int = 0
    """How often the epoch has shown it before, where it shows some samples several times."""

    @property
    def seed(self) -> str:
        """What its augmentation is drawn from, with the run's seed and the epoch."""
        return f"{self.uid}/{self.turn}" if self.turn else self.uid


class Dataset(Protocol):
    """Numbered samples. The same (number, epoch) always gives the same sample."""

    def __len__(self) -> int:
        """Samples in an epoch."""
        ...

    def sample(self, number: int, epoch: int) -> Sample:
        """One sample with its image decoded."""
        ...

    def lengths(self, number: int, epoch: int) -> tuple[int, int]:
        """The sample's longest prompt and target, in tokens, without touching its image."""
        ...


class ImageCache:
    """Decoded images by number, up to a total size; what does not fit is decoded each time.

    Nothing is evicted: with a permuted order every image is equally far from its next use.
    """

    def __init__(self, megabytes: int) -> None:
        self._left = megabytes * 2**20
        self._images: dict[int, Image.Image] = {}

    def get(self, number: int, decode: Callable[[], Image.Image]) -> Image.Image:
        """The image, decoded by the given function the first time."""
        image = self._images.get(number)
        if image is None:
            image = decode()
            size = image.width * image.height * 3
            if size <= self._left:
                self._left -= size
                self._images[number] = image
        return image


def target_ids(ids: np.ndarray, longest: int) -> np.ndarray:
    """int64 token ids cut to `longest - 1`, plus eos."""
    return np.append(ids[: longest - 1].astype(np.int64), EOS)
