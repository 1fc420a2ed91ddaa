"""What an adapter implements: how a source's lists are split into units of work, and how one unit is read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeVar

from stages.artifact import Artifact
from stages.ingest.config import IngestSettings, SourceConfig
from stages.ingest.files import InputFile, find, find_in_world


@dataclass(frozen=True)
class Pair:
    """One listed image-text pair. Either `url` or `path` says where the image is."""

    file: InputFile
    caption: str
    url: str | None = None
    path: str | None = None
    """Relative to `images` of the config, or to the ingest artifact for an image given here."""
    license: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)
    """The source's own columns, JSON-serialisable."""
    image: bytes | None = None
    """The image itself, where it cannot be taken as it lies (de-identified pixels): stored as `path`."""


@dataclass(frozen=True)
class Reject:
    """A listed row that is no pair; it is recorded and never stops a run."""

    file: InputFile
    reason: str
    """A fixed phrase in snake_case, never a quotation."""


@dataclass(frozen=True)
class Unit:
    """Work that is read in one go: some files, or a range of one file."""

    files: tuple[InputFile, ...]
    start: int = 0
    """First byte or row group of the only file."""
    end: int | None = None
    """One after the last; None for the whole file."""

    def to_spec(self) -> dict[str, Any]:
        """JSON-serialisable, for `Partition.spec`."""
        return {"files": [[f.name, f.url] for f in self.files], "start": self.start, "end": self.end}

    @staticmethod
    def from_spec(spec: Mapping[str, Any]) -> Unit:
        """Inverse of :meth:`to_spec`."""
        return Unit(tuple(InputFile(name, url) for name, url in spec["files"]), spec["start"], spec["end"])


S = TypeVar("S", bound=SourceConfig)


class Source(ABC, Generic[S]):
    """An adapter: the class registered under `pairmill.sources`.

    Cheap to construct and free of heavy imports at module level: it is loaded to validate the configuration.
    """

    Config: ClassVar[type[SourceConfig]] = SourceConfig
    """Schema of `sources.NAME`."""

    def __init__(self, name: str, config: S, settings: IngestSettings, world: Artifact | None = None) -> None:
        self.name = name
        self.config = config
        self.settings = settings
        self.world = world

    def files(self, key: str = "paths") -> list[InputFile]:
        """The input files one of `Config.list_keys` names. Raises UserError when there are none."""
        patterns = getattr(self.config, key)
        where = f"sources.{self.name}.{key}"
        if self.world is None:
            return find(patterns, where)
        return find_in_world(self.world, patterns, where)

    @abstractmethod
    def splits(self, files: Sequence[InputFile]) -> list[Unit]:
        """Units of work, determined by the files and the settings alone."""

    @abstractmethod
    def read(self, unit: Unit) -> Iterator[Pair | Reject]:
        """Exactly one item per listed row, in the order of the list."""

    def local_image(self, name: str) -> str | None:
        """A listed file name as a path below `images`, or None when it would lead out of that folder."""
        parts = name.replace("\\", "/").split("/")
        return None if name.startswith("/") or not name or {"..", ""} & set(parts) else "/".join(parts)
