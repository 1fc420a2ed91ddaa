"""What a training sample is, and what every training data set offers. Loaded by worker processes: no torch here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from stages.train.data.crop import View


class DamagedSample(Exception):
    """A sample whose stored bytes are not those that were written, or are no image; one line, without its content."""

    def __init__(self, reason: str, uid: str = "") -> None:
        super().__init__(reason)
        self.uid = uid
        """The sample's, where it is known."""


@dataclass(frozen=True)
class Text:
    """One text about an image: int64 token ids."""

    prompt: np.ndarray
    """[prompt_length], no bos, no eos; may be empty."""
    target: np.ndarray
    """[target_length], ends with eos."""

    def __reduce__(self) -> tuple[Callable[[bytes, bytes], Text], tuple[bytes, bytes]]:
        # Texts come from workers by the million; numpy's own way of pickling two short arrays takes thrice as long.
        return _unpacked, (self.prompt.tobytes(), self.target.tobytes())


def _unpacked(prompt: bytes, target: bytes) -> Text:
    return Text(np.frombuffer(prompt, dtype=np.int64), np.frombuffer(target, dtype=np.int64))


@dataclass(frozen=True)
class Sample:
    """One image and the texts that are learnt with it."""

    uid: str
    """Names the sample in errors and, with `turn`, seeds its augmentation."""
    image_id: int
    """Equal for samples of the same image."""
    image: bytes
    """As stored: JPEG, PNG, WebP, ..."""
    texts: Callable[[View], tuple[Text, ...]]
    """At least one, as they are true of what the view shows: boxes follow the crop, a mirrored view swaps sides."""
    boxes: NDArray[np.float32] | None = None
    """[n, 4] left, top, right, bottom in pixels of the upright image: what a crop must hold whole."""
    mirrorable: bool = True
    """Whether the texts stay true, or can be made true, when the image is mirrored."""
    turn: int = 0
    """How often the epoch has shown it before, where it shows some samples several times."""

    @property
    def seed(self) -> str:
        """What its augmentation is drawn from, with the run's seed and the epoch."""
        return f"{self.uid}/{self.turn}" if self.turn else self.uid


class Dataset(Protocol):
    """Numbered samples. The same (number, epoch) always gives the same sample. Picklable: workers get a copy."""

    def __len__(self) -> int:
        """Samples in an epoch."""
        ...

    def sample(self, number: int, epoch: int) -> Sample:
        """One sample, its image read but not decoded. Raises DamagedSample when it cannot be had as it was written."""
        ...

    def lengths(self, number: int, epoch: int) -> tuple[int, int]:
        """The sample's longest prompt and target in tokens, in whichever view, without touching its image."""
        ...

    def longest(self, numbers: NDArray[np.int64], epochs: NDArray[np.int64]) -> tuple[int, int]:
        """The longest prompt and target of many samples, int64 [n] each, as :meth:`lengths` has them."""
        ...

    def members(self, sources: Sequence[str]) -> Mapping[str, Members]:
        """The samples of each source. Raises UserError unless `sources` are all that the data hold, and no others."""
        ...

    def source(self, number: int) -> str:
        """Name of the source of a sample; empty where there are none."""
        ...


class Members(Protocol):
    """Some of a data set's samples, numbered anew from 0 in the data set's order."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    def __call__(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Numbers in the data set, int64 [n], of the members at `places`, int64 [n]."""
        ...


def target_ids(ids: np.ndarray, longest: int, eos: int = 2) -> np.ndarray:
    """int64 token ids cut to `longest - 1`, plus `eos`."""
    return np.append(ids[: longest - 1].astype(np.int64), eos)
