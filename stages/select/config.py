"""What is kept: rules over signals, duplicates, benchmark images. Schema of `conf/selection/*.yaml`.

Every pair gets the first reason that applies, in this order:

1. `download.<status>`: its image was never fetched;
2. `rule.undecodable`, then `rule.<name>` in the order of :class:`Rules`' fields, the image's before the caption's;
3. `benchmark.<name>`: its image is in a benchmark, benchmarks in alphabetical order;
4. `duplicate.exact`, then `duplicate.near`: a better copy of its image is kept;
5. `cap`: its source had enough.

Only what came through one step takes part in the next, so an image whose captions all fail a rule never displaces its
copy. Among copies the one with more pixels survives, then with more bytes, then with the smaller `image_uid`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from stages.contract import How, StageConfig

Side = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class Rules(StageConfig):
    """Bounds on signals, each inclusive: a value on the bound is kept. A null bound is no rule."""

    min_bytes: Count | None = None
    """Size of the image file."""
    min_side: Side | None = None
    """Shorter side in pixels."""
    max_side: Side | None = None
    """Longer side in pixels."""
    max_aspect_ratio: Annotated[float, Field(ge=1)] | None = None
    """Longer side over shorter side."""
    min_entropy: Annotated[float, Field(ge=0, le=8)] | None = None
    """Bits of the luminance histogram; a blank image has 0."""
    min_characters: Count | None = None
    """Code points of the caption."""
    max_characters: Count | None = None
    """Code points of the caption."""
    min_words: Count | None = None
    """Words between white space."""
    max_words: Count | None = None
    """Words between white space."""
    max_repetition: Share | None = None
    """Share of words that already occurred in the caption."""
    languages: Annotated[list[str], Field(min_length=1)] | None = None
    """lid.176 codes (`en`, `de`, ...); the rule is called `rule.language`."""
    min_language_score: Share | None = None
    """Probability of the language found."""
    min_similarity: Annotated[float, Field(ge=-1, le=1)] | None = None
    """CLIP similarity as the source's list gives it; a pair whose list is silent passes, as in the next two."""
    max_unsafe: Share | None = None
    """Probability of unsafe content as the source's list gives it."""
    max_watermark: Share | None = None
    """Probability of a watermark as the source's list gives it."""

    @model_validator(mode="after")
    def _ordered(self) -> Rules:
        for low, high in (
            ("min_side", "max_side"),
            ("min_characters", "max_characters"),
            ("min_words", "max_words"),
        ):
            a, b = getattr(self, low), getattr(self, high)
            if a is not None and b is not None and a > b:
                raise ValueError(f"{low}={a} is above {high}={b}, which keeps nothing")
        return self


class Near(StageConfig):
    """When two images are the same picture: perceptual hashes within a radius, confirmed on 8x8 RGB thumbnails.

    A hash alone takes plain pictures for one another (it ignores colour, and in flat areas it is noise). So a pair of
    images within the radius counts only if its thumbnails agree in one of two ways; with both null the hash decides.
    """

    hash: Literal["phash", "phash_rgb"] = "phash"
    """`phash`: 64 bits of the luminance; `phash_rgb`: 64 bits per channel."""
    radius: Annotated[int, Field(ge=0, le=48)] = 8
    """Bits that may differ."""
    max_difference: Annotated[float, Field(ge=0, le=255)] | None = 2.0
    """Mean absolute difference of the thumbnails in grey levels (0..255): finds re-encoded and resized copies."""
    max_relative_difference: Annotated[float, Field(ge=0, le=1)] | None = 0.07
    """The same after one common change of brightness is undone, over the thumbnails' own mean absolute deviation:
    finds brightened and darkened copies."""


class Duplicates(StageConfig):
    """Which images of the training sources are copies of one another."""

    exact: bool = True
    """Equal stored bytes or equal decoded pixels."""
    near: Near | None = None
    """Nearly equal pictures; null looks for none."""


class Contamination(StageConfig):
    """Which training images are in a benchmark and must go, so that no score is inflated."""

    enabled: bool = True
    """Whether to look at the benchmarks at all."""
    exact: bool = True
    """Equal decoded pixels."""
    near: Near | None = Near()
    """Nearly equal pictures; null looks for none."""


class SelectionConfig(StageConfig):
    """`selection`: what is kept of what was measured."""

    name: str
    """As in `SELECTION=name`; shown in the report."""
    rules: Rules = Rules()
    """Bounds on signals."""
    duplicates: Duplicates = Duplicates()
    """Copies among the training images."""
    contamination: Contamination = Contamination()
    """Copies of benchmark images."""
    max_pairs: dict[str, Annotated[int, Field(ge=0)]] = {}
    """Source -> most pairs to keep: those with the smallest uid, which is a fixed random sample."""


class BenchmarkImages(StageConfig):
    """Where a benchmark's images lie: `images` is a folder inside `world`, or, without a world, any folder or URL."""

    world: str | None = None
    """The world that holds them."""
    images: str = ""
    """Folder inside the world; the empty string is the whole world."""
    folder: Annotated[str | None, How] = None
    """Folder outside any world. The result depends on what is in it, not on where it is."""

    @model_validator(mode="before")
    @classmethod
    def _outside(cls, value: Any) -> Any:
        if not isinstance(value, dict | BenchmarkImages):  # another schema that describes the same thing
            value = {"world": getattr(value, "world", None), "images": getattr(value, "images", None)}
        if isinstance(value, dict) and value.get("world") is None and value.get("images"):
            return {**value, "images": "", "folder": value["images"]}
        return value

    @model_validator(mode="after")
    def _somewhere(self) -> BenchmarkImages:
        if (self.world is None) == (self.folder is None):
            raise ValueError("benchmark images need a world, or a folder outside of one")
        return self


class SelectConfig(StageConfig):
    """All that the `select` stage depends on.

    Its input `worlds` holds one artifact per world that `benchmarks` names, in the order of first mention.
    """

    selection: SelectionConfig
    """The preset."""
    benchmarks: dict[str, BenchmarkImages] = {}
    """Name -> images to keep out of training."""
    private_sources: list[str] = []
    """Sources of which only counts and uids may appear in the report."""
