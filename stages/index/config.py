"""Configuration of the index: how far copies are searched, and which benchmarks' images and texts are looked for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal, Protocol

from pydantic import Field, model_validator

from stages.base.contract import FingerprintedAs, NotFingerprinted, StageConfig
from stages.base.external_files import ExternalFile, ExternalFilesConfig

#: Columns of the signals that hold a perceptual hash. `phash_d4` finds copies in all eight positions (quarter turns,
#: mirrored or not) and compares thumbnails in the one that fits best.
Hash = Literal["phash", "phash_rgb", "phash_d4"]


class IndexSettings(StageConfig):
    """The root key `index`."""

    radius: Annotated[int, Field(ge=0, le=24)] = 8
    """Bits of perceptual hash up to which near copies are searched at least: any smaller radius re-selects at once. A
    selection that compares further is searched that far (:func:`search_radius`)."""
    ngram: Annotated[int, Field(ge=3, le=32)] = 8
    """Words in a row that a caption must share with a benchmark's text to count as a hit."""
    max_near: Annotated[int, NotFingerprinted, Field(ge=1)] = 100_000_000
    """Near pairs above which the index gives up instead of filling the disk (26 bytes each in the artifact)."""
    range_rows: Annotated[int, Field(ge=1, le=1_000_000_000)] = 1_000_000
    """Pairs that are worked on at a time: what a process of `index`, `select` and `shard` holds in memory. A part of a
    source that has more is taken whole. Divides the tables into files; what they say does not depend on it."""


class BenchmarkImages(ExternalFilesConfig):
    """A benchmark's images and texts, which must not be trained on."""

    images: Annotated[str, ExternalFile, Field(min_length=1)]
    """Folder of the images. The result depends on what is in it, not on where it is."""
    texts: Annotated[tuple[str, ...], ExternalFile] = ()
    """Files with the benchmark's captions or questions (its public JSON formats)."""
    image_pattern: str | None = None
    """File name below `images` of an image that the texts list, as in :class:`stages.evaluate.config.VqaBenchmark`:
    only those are held out, so that a split's images may lie among those of another. Null holds out all there."""
    karpathy_split: str = "test"
    """Which images of a Karpathy JSON are meant."""

    @model_validator(mode="after")
    def _pattern_has_a_list(self) -> BenchmarkImages:
        if self.image_pattern is not None and not self.texts:
            raise ValueError("an image_pattern needs the file that lists the images, in texts")
        return self

    def fingerprinted_addresses(self) -> dict[str, Any]:
        """The same under the fields' own names."""
        fields = super().fingerprinted_addresses()
        return {"images": "", "texts": [], **fields.pop("world_files"), **fields}


class IndexConfig(StageConfig):
    """All that the `index` stage depends on."""

    search_radius: Annotated[dict[Hash, Annotated[int, Field(ge=0, le=48)]], FingerprintedAs("radius")]
    """Perceptual hash -> bits up to which its near copies are searched, among the images and in the benchmarks."""
    crops: bool = False
    """Whether crops of the benchmarks' images are looked for, and images of which theirs are crops."""
    ngram: Annotated[int, Field(ge=3, le=32)] = 8
    """As in :class:`IndexSettings`."""
    benchmarks: dict[str, BenchmarkImages] = {}
    """Name -> what must not be trained on."""
    private_sources: list[str] = []
    """Sources whose hosts are not shown."""
    max_near: Annotated[int, NotFingerprinted, Field(ge=1)] = 100_000_000
    """As in :class:`IndexSettings`."""
    range_rows: Annotated[int, Field(ge=1, le=1_000_000_000)] = 1_000_000
    """As in :class:`IndexSettings`."""


class NearRule(Protocol):
    """What a selection states of near copies, as far as the search depends on it."""

    @property
    def hash(self) -> Hash:
        """The perceptual hash that is compared."""

    @property
    def radius(self) -> int:
        """Bits that may differ."""


def search_radius(settings: IndexSettings, rules: Iterable[NearRule | None]) -> dict[Hash, int]:
    """Perceptual hash -> bits up to which the index is searched by it: `IndexConfig.search_radius`.

    Only hashes that a rule compares are searched, each as far as the rules need, and at least as far as `index.radius`.
    """
    radius: dict[Hash, int] = {}
    for rule in rules:
        if rule is not None:
            radius[rule.hash] = max(radius.get(rule.hash, settings.radius), rule.radius)
    return radius
