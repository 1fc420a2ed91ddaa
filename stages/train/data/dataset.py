"""What a training sample is, and what every training data set offers. Loaded by worker processes: no torch here."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from stages.train.data.crop import Crop


class DamagedSample(Exception):
    """A sample whose stored bytes are not those that were written, or are no image; one line, without its content."""

    def __init__(self, reason: str, uid: str = "") -> None:
        super().__init__(reason)
        self.uid = uid
        """The sample's, where it is known."""


@dataclass(frozen=True)
class TokenizedText:
    """One text about an image: int64 token ids."""

    prompt: np.ndarray
    """[prompt_length], no bos, no eos; may be empty."""
    target: np.ndarray
    """[target_length], ends with eos."""

    def __reduce__(self) -> tuple[Callable[[bytes, bytes], TokenizedText], tuple[bytes, bytes]]:
        # Texts come from workers by the million; numpy's own pickling of two short arrays takes three times as long.
        return _text_from_bytes, (self.prompt.tobytes(), self.target.tobytes())


def _text_from_bytes(prompt: bytes, target: bytes) -> TokenizedText:
    return TokenizedText(np.frombuffer(prompt, dtype=np.int64), np.frombuffer(target, dtype=np.int64))


@dataclass(frozen=True)
class TrainingSample:
    """One image and the texts that are learnt with it."""

    uid: str
    """Names the sample in errors and, with `repeat`, seeds its augmentation."""
    image_id: int
    """Equal for samples of the same image."""
    image: bytes
    """As stored: JPEG, PNG, WebP, ..."""
    texts: Callable[[Crop], tuple[TokenizedText, ...]]
    """At least one, but none for an image-only sample; true of what the crop shows: boxes follow the crop, flipping it
    swaps left and right."""
    boxes: NDArray[np.float32] | None = None
    """[n, 4] left, top, right, bottom in pixels of the upright image: what a crop must hold whole."""
    flippable: bool = True
    """Whether the texts stay true, or can be made true, when the image is flipped."""
    repeat: int = 0
    """Number of earlier times the epoch has shown it, where it shows some samples several times."""

    @property
    def seed(self) -> str:
        """What its augmentation is drawn from, with the run's seed and the epoch."""
        return f"{self.uid}/{self.repeat}" if self.repeat else self.uid


@dataclass(frozen=True)
class TextTotals:
    """What some samples' texts add up to."""

    texts: int
    """Number of texts."""
    target_tokens: int
    """Tokens of their targets, the ends of the texts included."""


Flips = Callable[[str, int], bool]
"""Whether the image of a sample, given by its `TrainingSample.seed` and the epoch, is flipped where it may be."""


class Dataset(Protocol):
    """Numbered samples. The same (number, epoch) always gives the same sample. Picklable: workers get a copy."""

    def __len__(self) -> int:
        """Samples in an epoch."""
        ...

    def sample(self, number: int, epoch: int) -> TrainingSample:
        """One sample, its image read but not decoded. Raises DamagedSample for bytes that are not as written."""
        ...

    def lengths(self, number: int, epoch: int) -> tuple[int, int]:
        """The sample's longest prompt and target in tokens over all crops, without reading its image."""
        ...

    def longest(self, numbers: NDArray[np.int64], epochs: NDArray[np.int64]) -> tuple[int, int]:
        """The longest prompt and target of many samples, int64 [n] each, as :meth:`lengths` has them."""
        ...

    def totals(self, numbers: NDArray[np.int64], epochs: NDArray[np.int64], flips: Flips) -> TextTotals:
        """What the texts of many samples, int64 [n] each, add up to, exactly as training shows them; reads no image."""
        ...

    def subsets(self, sources: Sequence[str]) -> Mapping[str, Subset]:
        """The samples of each source. Raises UserError unless `sources` are exactly those of the data."""
        ...

    def with_texts(self) -> Subset | None:
        """The samples that have a text; None where all have."""
        ...

    @property
    def image_only(self) -> Collection[str]:
        """Names of the sources of which no sample has a text; samples of all others have."""
        ...

    def uid(self, number: int) -> str:
        """What names a sample, without reading its image."""
        ...

    def source(self, number: int) -> str:
        """Name of the source of a sample; empty where there are none."""
        ...


class Subset(Protocol):
    """Some of a data set's samples, renumbered from 0 in the data set's order."""

    def __len__(self) -> int:
        """Number of samples."""
        ...

    def __call__(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Numbers in the data set, int64 [n], of the samples at `positions` of the subset, int64 [n]."""
        ...


def target_ids(ids: np.ndarray, longest: int, eos: int = 2) -> np.ndarray:
    """int64 token ids cut to `longest - 1`, plus `eos`."""
    return np.append(ids[: longest - 1].astype(np.int64), eos)
