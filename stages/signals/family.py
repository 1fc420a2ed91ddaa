"""What a family of signals is: a class that declares what it reads, writes and costs, and measures in batches.

Modules of families are imported by every command, to know versions and columns: they import numpy, Pillow and models
inside methods.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, NamedTuple, TypeVar, cast

from stages.base.contract import StageConfig

if TYPE_CHECKING:
    from PIL.Image import Image

#: One value per column; None where it cannot be said.
Row = Mapping[str, Any]


class NoConfig(StageConfig):
    """A family without settings."""


C = TypeVar("C", bound=StageConfig)


@dataclass(frozen=True)
class Cost:
    """What measuring takes."""

    milliseconds: float
    """Rough time per image (or caption, for a family that reads no image) on one core of a 2 GHz server."""
    model: str = ""
    """The network it loads, with its licence; empty for none."""
    gpu: bool = False
    """Whether it works on a GPU where there is one."""


class Listing(NamedTuple):
    """A caption with what the source's list says beside it."""

    caption: str
    meta: Mapping[str, Any]


class Family(ABC, Generic[C]):
    """Base of the four kinds below. Subclass one of those.

    Measuring must be deterministic, and a row must not depend on what else is in its batch beyond the digits kept:
    results are kept per raw shard and reused as long as name, :attr:`version`, settings and shard are the same.
    """

    name: ClassVar[str]
    """By which `signals.families` calls it."""
    version: ClassVar[int] = 1
    """Raise it when the same image and settings give another value: that recomputes this family alone."""
    reads: ClassVar[Literal["bytes", "image", "caption", "image and caption"]]
    table: ClassVar[Literal["images", "pairs"]]
    """Which table the columns belong to."""
    columns: ClassVar[Mapping[str, str]]
    """Name -> type: an Arrow type by its name (`float32`, `int32`, `bool`, `string`), `list<...>` or `binary[N]`."""
    cost: ClassVar[Cost]
    batch: ClassVar[int] = 1
    """How many images (or pairs) :meth:`measure` gets at once, except for the last."""
    Config: ClassVar[type[StageConfig]] = NoConfig
    """Schema of its settings. Fields marked `NotFingerprinted` do not change a value."""

    def __init__(self, config: C | None = None) -> None:
        """Cheap: models are loaded in :meth:`setup`."""
        self.config = config if config is not None else cast("C", self.Config())

    def check(self) -> None:
        """Raise UserError when a package or file is missing, naming the key and what to do. Called before any work."""
        return

    def identity(self) -> Mapping[str, Any]:
        """What determines values besides version and settings (a digest of weights); JSON-serialisable."""
        return {}

    def setup(self) -> None:
        """Load models; called once per process, before the first image that this family has to measure."""
        return


class ImageFamily(Family[C]):
    """Measures decoded images."""

    reads = "image"
    table = "images"

    @abstractmethod
    def prepare(self, rgb: Image) -> Any:
        """Reduce one upright 8-bit RGB image to what :meth:`measure` needs, since a batch of photographs at full size
        would not fit in memory. A family that measures image by image returns its row here."""

    def measure(self, prepared: Sequence[Any]) -> Sequence[Row]:
        """One row per image of a batch."""
        return prepared


class BytesFamily(Family[C]):
    """Measures files as they are stored, decodable or not."""

    reads = "bytes"
    table = "images"

    @abstractmethod
    def prepare(self, data: bytes) -> Any:
        """As :meth:`ImageFamily.prepare`, of an encoded image."""

    def measure(self, prepared: Sequence[Any]) -> Sequence[Row]:
        """One row per file of a batch."""
        return prepared


class PairFamily(Family[C]):
    """Measures captions together with what the source's list says of the pair."""

    reads = "caption"
    table = "pairs"
    batch = 1024

    @abstractmethod
    def measure(self, pairs: Sequence[Listing]) -> Sequence[Row]:
        """One row per pair of a batch."""


class JointFamily(Family[C]):
    """Measures images and captions against each other."""

    reads = "image and caption"
    table = "pairs"

    @abstractmethod
    def prepare(self, rgb: Image) -> Any:
        """As :meth:`ImageFamily.prepare`."""

    @abstractmethod
    def measure(self, prepared: Sequence[Any], captions: Sequence[Sequence[str]]) -> Sequence[Sequence[Row]]:
        """For every image of a batch one row per caption of it."""
