"""LAION's parquet lists, and others of the same shape: a URL column, a text column, and anything else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

from stages.ingest.columns import Choice
from stages.ingest.config import ListConfig, SourceConfig
from stages.ingest.files import InputFile
from stages.ingest.parquet import read_parquet, row_group_runs
from stages.ingest.source import Item, Source, Unit


class LaionConfig(ListConfig):
    """`kind: laion` and `kind: datacomp`."""

    url_column: str | None = None
    """Column of image URLs; null finds `URL`, `url` and the like."""
    text_column: str | None = None
    """Column of captions; null finds `TEXT`, `text`, `CAPTION` or `caption`."""


class Laion(Source[LaionConfig]):
    """Everything beside URL, text and license is kept under `meta`, null where the list has NaN.

    All releases are read alike: LAION-400M (SAMPLE_ID, LICENSE, NSFW), 2B-en (hash, punsafe, pwatermark), 2B-multi
    (LANGUAGE beside those), aesthetics (AESTHETIC_SCORE or prob), re-uploads in lower case. Sizes stay in `meta`: some
    releases have WIDTH and HEIGHT swapped, so only the image itself is believed. `hash` is mmh3 of URL and text and
    says nothing of the image; columns `sha256` and `md5`, where a release has them, are digests of its bytes.
    """

    Config: ClassVar[type[SourceConfig]] = LaionConfig

    def splits(self, files: Sequence[InputFile]) -> list[Unit]:
        """Runs of whole row groups, `rows_per_partition` rows or a few more each."""
        return row_group_runs(files, self.settings.rows_per_partition)

    def read(self, unit: Unit) -> Iterator[Item]:
        """One item per row. Raises BadFile when the file has no URL or text column."""
        config = self.config
        choice = Choice(self, url=config.url_column, caption=config.text_column, caption_key="text_column")
        return read_parquet(unit, choice)


class DataComp(Laion):
    """DataComp's parquet metadata: `uid, url, text, original_width, original_height, clip_*_similarity_score,
    face_bboxes, sha256`, of which `sha256` is that of the image as its makers fetched it and is checked again."""
