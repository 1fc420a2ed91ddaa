"""Configuration of the index: how far copies are searched, and which benchmarks' images and texts are looked for."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from stages.base.contract import NotFingerprinted, StageConfig

#: Columns of the signals that hold a perceptual hash. `phash_d4` finds copies in all eight positions (quarter turns,
#: mirrored or not) and compares thumbnails in the one that fits best.
Hash = Literal["phash", "phash_rgb", "phash_d4"]


class IndexSettings(StageConfig):
    """The root key `index`."""

    radius: Annotated[int, Field(ge=0, le=24)] = 8
    """Bits of perceptual hash up to which near copies are searched: any smaller radius re-selects at once. A
    selection that asks for more raises it by itself."""
    ngram: Annotated[int, Field(ge=3, le=32)] = 8
    """Words in a row that a caption must share with a benchmark's text to count as a hit."""
    max_near: Annotated[int, NotFingerprinted, Field(ge=1)] = 100_000_000
    """Near pairs above which the index gives up instead of filling the memory (18 bytes each in the artifact)."""


class BenchmarkImages(StageConfig):
    """Where a benchmark's images and texts lie: inside `world`, or, without a world, in any folder or URL."""

    world: str | None = None
    """The world that holds them."""
    images: str = ""
    """Folder inside the world; the empty string is the whole world."""
    texts: tuple[str, ...] = ()
    """Files inside the world with the benchmark's captions or questions (its public JSON formats)."""
    image_pattern: str | None = None
    """File name below `images` of an image that the texts list, as in :class:`stages.evaluate.config.VqaBenchmark`:
    only those are held out, so that a split's images may lie among those of another. Null holds out all there."""
    karpathy_split: str = "test"
    """Which images of a Karpathy JSON are meant."""
    folder: Annotated[str | None, NotFingerprinted] = None
    """Folder outside any world. The result depends on what is in it, not on where it is."""
    files: Annotated[tuple[str, ...], NotFingerprinted] = ()
    """Text files outside any world."""

    @model_validator(mode="before")
    @classmethod
    def _outside(cls, value: Any) -> Any:
        if not isinstance(value, dict | BenchmarkImages):  # another schema that describes the same thing
            value = {name: getattr(value, name) for name in ("world", "images", "texts") if hasattr(value, name)}
        if isinstance(value, dict) and value.get("world") is None and value.get("images"):
            texts = value.get("texts") or ()
            return {**value, "images": "", "folder": value["images"], "texts": (), "files": texts}
        return value

    @model_validator(mode="after")
    def _somewhere(self) -> BenchmarkImages:
        if (self.world is None) == (self.folder is None):
            raise ValueError("benchmark images need a world, or a folder outside of one")
        if self.image_pattern is not None and not (self.texts or self.files):
            raise ValueError("an image_pattern needs the file that lists the images, in texts")
        return self


class IndexConfig(StageConfig):
    """All that the `index` stage depends on.

    Its input `worlds` holds one artifact per world that `benchmarks` names, in the order of first mention.
    """

    radius: dict[Hash, Annotated[int, Field(ge=0, le=48)]]
    """Perceptual hash -> bits up to which its near copies are searched, among the images and in the benchmarks."""
    ngram: Annotated[int, Field(ge=3, le=32)] = 8
    """As in :class:`IndexSettings`."""
    benchmarks: dict[str, BenchmarkImages] = {}
    """Name -> what must not be trained on."""
    private_sources: list[str] = []
    """Sources whose hosts are not told."""
    max_near: Annotated[int, NotFingerprinted, Field(ge=1)] = 100_000_000
    """As in :class:`IndexSettings`."""
