"""Base classes of signal families: a family declares what it reads, writes and costs, and measures in batches.

Every command imports the modules of families, to know versions and columns: they must import numpy, Pillow and models
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

#: One value per column; None where it is unknown.
Row = Mapping[str, Any]


class NoConfig(StageConfig):
    """A family without settings."""


C = TypeVar("C", bound=StageConfig)


@dataclass(frozen=True)
class Cost:
    """What measuring costs."""

    milliseconds: float
    """Rough time per image (or caption, for a family that reads no image) on one core of a 2 GHz server."""
    model: str = ""
    """The network it loads, with its licence; empty for none."""
    gpu: bool = False
    """Whether it uses a GPU if there is one."""


class Listing(NamedTuple):
    """A caption with the metadata that its source lists."""

    caption: str
    """Empty for an image-only sample."""
    meta: Mapping[str, Any]


class Family(ABC, Generic[C]):
    """Base of the four kinds below. Subclass one of those.

    Measuring must be deterministic, and a row must not depend on the rest of its batch beyond the stored digits:
    results are cached per raw shard and reused as long as name, :attr:`version`, settings and shard are the same.
    """

    name: ClassVar[str]
    """Its name in `signals.families`."""
    version: ClassVar[int] = 1
    """Increment it when the same image and settings give another value: that recomputes this family alone."""
    reads: ClassVar[Literal["bytes", "image", "caption", "image and caption"]]
    table: ClassVar[Literal["images", "pairs"]]
    """The table to which the columns belong."""
    columns: ClassVar[Mapping[str, str]]
    """Name -> type: an Arrow type by its name (`float32`, `int32`, `bool`, `string`), `list<...>` or `binary[N]`."""
    cost: ClassVar[Cost]
    batch: ClassVar[int] = 1
    """Number of images (or pairs) that :meth:`measure` gets per batch, except for the last."""
    Config: ClassVar[type[StageConfig]] = NoConfig
    """Schema of its settings. Fields marked `NotFingerprinted` must not affect any value."""

    def __init__(self, config: C | None = None) -> None:
        """Cheap: models are loaded in :meth:`setup`."""
        self.config = config if config is not None else cast("C", self.Config())

    def check(self) -> None:
        """Raise UserError if a package or file is missing, naming the key and what to do. Called before any work."""
        return

    def identity(self) -> Mapping[str, Any]:
        """What determines values besides version and settings, such as a digest of weights; JSON-serialisable."""
        return {}

    def setup(self) -> None:
        """Load models; called once per process, before this family measures its first image."""
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
    """Measures encoded files, decodable or not."""

    reads = "bytes"
    table = "images"

    @abstractmethod
    def prepare(self, data: bytes) -> Any:
        """As :meth:`ImageFamily.prepare`, for an encoded image."""

    def measure(self, prepared: Sequence[Any]) -> Sequence[Row]:
        """One row per file of a batch."""
        return prepared


class PairFamily(Family[C]):
    """Measures captions together with the metadata that their source lists."""

    reads = "caption"
    table = "pairs"
    batch = 1024
    needs_caption: ClassVar[bool] = True
    """Whether image-only samples, which have no caption, are left out: all their columns are null then."""

    @abstractmethod
    def measure(self, pairs: Sequence[Listing]) -> Sequence[Row]:
        """One row per pair of a batch."""


class JointFamily(Family[C]):
    """Measures images and captions against each other; columns of image-only samples are null."""

    reads = "image and caption"
    table = "pairs"

    @abstractmethod
    def prepare(self, rgb: Image) -> Any:
        """As :meth:`ImageFamily.prepare`."""

    @abstractmethod
    def measure(self, prepared: Sequence[Any], captions: Sequence[Sequence[str]]) -> Sequence[Sequence[Row]]:
        """For each image of a batch, one row per caption."""
