"""What an adapter implements: how a source's lists are split into units of work, and how one unit is read."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

from stages.base.contract import Inputs
from stages.base.external_files import resolve
from stages.ingest.config import IngestSettings, SourceConfig
from stages.ingest.files import BadFile, InputFile, find

__all__ = ["BadFile", "Columns", "Digest", "InputFile", "Item", "Pair", "Reject", "Source", "Unit", "checked_digest"]

_HEX = re.compile(r"[0-9a-f]+")
_DIGEST_DIGITS = {"sha256": 64, "md5": 32}


class Pair(NamedTuple):
    """One listed image-text pair. Either `url` or `path` says where the image is."""

    file: InputFile
    caption: str
    """Empty in an image-only source (`captions: none`); what one has all the same is ignored."""
    url: str | None = None
    path: str | None = None
    """Relative to `images` of the config, or to the ingest artifact for an image given here."""
    license: str | None = None
    meta: Mapping[str, Any] | str = {}
    """The source's own columns, JSON-serialisable, or already a JSON object's text. The keys `sha256` and `md5` mean
    hex digests of the image file: the download checks them."""
    image: bytes | None = None
    """The image itself, where it cannot be taken as it lies (de-identified pixels): stored as `path`."""


class Reject(NamedTuple):
    """A listed row that is no pair; it is recorded and never stops a run."""

    file: InputFile
    reason: str
    """A fixed phrase in snake_case, never a quotation."""


class Columns(NamedTuple):
    """The columns of a list file, yielded once per file (by the unit that starts it); it is no row."""

    file: InputFile
    columns: Mapping[str, str]
    """Column -> its type as the format names it."""
    ignored: tuple[str, ...] = ()
    """Columns that are read for nothing and not kept: the captions that an image-only source lists all the same."""


class Digest(NamedTuple):
    """A row of a list of digests: what the image at a listed address should be. It is no pair."""

    file: InputFile
    location: str
    """URL (or path) as the pairs have it."""
    sha256: str | None
    md5: str | None


#: What :meth:`Source.read` yields.
Item = Pair | Reject | Columns | Digest


@dataclass(frozen=True)
class Unit:
    """Work that is read in one go: some files, or a range of one file."""

    files: tuple[InputFile, ...]
    start: int = 0
    """First byte or row group of the only file."""
    end: int | None = None
    """One after the last; None for the whole file."""
    role: str = "paths"
    """The config key whose files these are."""

    def to_spec(self) -> dict[str, Any]:
        """JSON-serialisable, for `Partition.spec`."""
        files = [[file.name, file.url] for file in self.files]
        return {"files": files, "start": self.start, "end": self.end, "role": self.role}

    @staticmethod
    def from_spec(spec: Mapping[str, Any]) -> Unit:
        """Inverse of :meth:`to_spec`."""
        files = tuple(InputFile(name, url) for name, url in spec["files"])
        return Unit(files, spec["start"], spec["end"], spec["role"])


S = TypeVar("S", bound=SourceConfig)


class Source(ABC, Generic[S]):
    """An adapter: the class registered under `pairmill.sources`.

    Cheap to construct and free of heavy imports at module level: it is loaded to validate the configuration.
    """

    Config: ClassVar[type[SourceConfig]] = SourceConfig
    """Schema of `sources.NAME`."""

    def __init__(self, name: str, config: S, settings: IngestSettings, inputs: Inputs | None = None) -> None:
        self.name = name
        self.config = config
        self.settings = settings
        self.inputs = inputs or {}
        self.system_files: dict[str, int] = {}
        """By config key, how many files of an operating system :meth:`files` passed over."""

    def files(self, key: str = "paths") -> list[InputFile]:
        """The input files one of `Config.list_keys` names. Raises UserError when there are none."""
        found = find(getattr(self.config, key), f"sources.{self.name}.{key}", self.inputs, self.config.private)
        self.system_files[key] = found.system_files
        return found.files

    def image_root(self) -> str:
        """Path or fsspec URL of the folder `images`; empty without one."""
        return resolve(self.config.images, self.inputs) if self.config.images else ""

    def units(self) -> list[Unit]:
        """All work of this source: that of `paths`, unless an adapter reads files of other keys row by row as well."""
        return self.splits(self.files())

    @abstractmethod
    def splits(self, files: Sequence[InputFile]) -> list[Unit]:
        """Units of work, determined by the files and the settings alone. A file too damaged to be split is a unit."""

    @abstractmethod
    def read(self, unit: Unit) -> Iterator[Item]:
        """Exactly one Pair or Reject per listed row, in the order of the list; Columns where a list file starts.

        Raises BadFile for a file that cannot be read (what was yielded before stays). Errors of the operating system,
        of Arrow and of decompression that are the file's own fault count as the same.
        """

    def local_image(self, name: str) -> str | None:
        """A listed file name as a path below `images`, or None when it would lead out of that folder."""
        parts = name.replace("\\", "/").split("/")
        outside = name.startswith("/") or not name or "\0" in name or {"..", "."} & set(parts) or "" in parts
        return None if outside else "/".join(parts)


def checked_digest(kind: str, value: Any) -> str | None:
    """A listed `sha256` or `md5` as lower-case hex digits, or None when it is not one."""
    digits = value.strip().lower() if isinstance(value, str) else ""
    return digits if len(digits) == _DIGEST_DIGITS[kind] and _HEX.fullmatch(digits) else None
