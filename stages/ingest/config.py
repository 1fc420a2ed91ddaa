"""Configuration of sources and of the ingest stage."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, SerializeAsAny, field_validator

from stages.base.contract import FingerprintedUnless, NotFingerprinted, StageConfig
from stages.base.external_files import ExternalFile, ExternalFilesConfig, parse


class SourceConfig(ExternalFilesConfig):
    """What every source has, whatever its kind; an adapter's `Config` adds its own keys."""

    list_keys: ClassVar[tuple[str, ...]] = ("paths",)
    """Fields that name lists: paths, folders or globs. An adapter may add some (the medical source: its reports)."""

    kind: str
    """Which adapter reads it: a name of the entry-point group `pairmill.sources`."""
    paths: Annotated[tuple[str, ...], ExternalFile, Field(min_length=1)]
    """Input files: paths, folders, globs (`**` too), fsspec URLs or addresses (`stages/base/external_files.py`). Their
    contents count, not where they lie."""
    images: Annotated[str | None, ExternalFile] = None
    """Root folder of images that are already on this machine; the list then names files below it, not URLs."""
    private: bool = False
    """Whether images and text must stay inside: only counts and uids reach reports, logs and MLflow."""
    license: str | None = None
    """License of every pair that does not state its own."""

    @property
    def image_only(self) -> bool:
        """Whether its samples are images without a text: `captions: none`, for kinds that have such a key."""
        return getattr(self, "captions", None) == "none"

    def external_files(self, key: str) -> list[str]:
        """All list files of one's own, for the fingerprint.

        `key` is the source's config key (`sources.NAME`). Raises UserError when a path or glob finds nothing.
        """
        from stages.ingest.files import find

        own = {name: [path for path in getattr(self, name) if parse(path) is None] for name in self.list_keys}
        return [file.url for name in own for file in find(own[name], f"{key}.{name}", private=self.private).files]

    def external_images(self, key: str) -> list[str]:
        """The folder of images, where it is one's own. Raises UserError when a private one is not there."""
        from stages.ingest.files import find

        if self.images is None or parse(self.images) is not None:
            return []
        if self.private:
            find([self.images], f"{key}.images", private=True)  # before anyone else names it in an error
        return [self.images]


class ListConfig(SourceConfig):
    """What sources have whose lists name an image per row, with or without a caption."""

    captions: Annotated[Literal["list", "each", "none"], FingerprintedUnless("list")] = "list"
    """`each`: where the column of captions holds a list of captions (in text tables: a JSON list), each of them is a
    pair. `none`: an image-only source. A column of captions may be missing; one that is there is ignored."""


class TextListConfig(ListConfig):
    """What sources have whose lists are lines of text."""

    encoding: Annotated[str | None, FingerprintedUnless(None)] = None
    """Encoding of text lists as Python names it, e.g. `cp1252`, `gb18030`, `utf-16-le`; null is UTF-8, or UTF-16 and
    UTF-32 where a byte-order mark says so."""

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, value: str | None) -> str | None:
        from stages.ingest.encodings import checked_encoding

        return None if value is None else checked_encoding(value)


class IngestSettings(StageConfig):
    """The root key `ingest`: how lists are cut, the same for every source."""

    rows_per_partition: Annotated[int, Field(ge=1)] = 200_000
    """Rows of a parquet list read as one unit of work (whole row groups, at least this many)."""
    bytes_per_partition: Annotated[int, Field(ge=1)] = 32_000_000
    """Bytes of a text list read as one unit of work (whole lines)."""
    files_per_partition: Annotated[int, Field(ge=1)] = 500
    """Image files (DICOM, PNG) read as one unit of work."""
    pairs_per_file: Annotated[int, Field(ge=1)] = 10_000
    """Pairs per output file, give or take one image's; each becomes one partition of the download."""
    max_caption_bytes: Annotated[int, Field(ge=1, le=10_000_000)] = 65_536
    """A longer caption (in UTF-8) is rejected: `caption_too_long`."""
    max_url_bytes: Annotated[int, Field(ge=8, le=1_000_000)] = 8_192
    """A longer URL (in UTF-8) is rejected: `url_too_long`. (Most web servers refuse longer ones.)"""
    max_bad_files: Annotated[float, NotFingerprinted, Field(ge=0, le=1)] = 0.05
    """Share of a source's list files that may be unreadable (broken, of another format, without the columns). Of three
    lists or more one may always be, unless this is 0; past it the stage stops and names the files."""


class IngestConfig(IngestSettings):
    """Settings, and the one source this artifact holds."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")]
    """The source's name in the run; part of every uid."""
    source: SerializeAsAny[SourceConfig]
    """Where its lists are and how to read them."""
