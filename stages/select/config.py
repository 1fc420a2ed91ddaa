"""Configuration of the select stage, schema of `conf/selection/*.yaml`: rules, benchmarks, copies, mixture.

Every pair gets the first reason that applies, in this order:

1. `forgotten`: it was removed by `pairmill forget`;
2. `download.<status>`: its image was never fetched;
3. `rule.undecodable`, then `rule.<name>`: the bounds on its image and then on its caption, each in the order of
   `Rules`' fields (of a caption the language comes first) and then of `where`; then `fractions`;
4. `benchmark.<name>`: its image is in a benchmark, then `benchmark_text.<name>`: its caption is; benchmarks in
   alphabetical order;
5. `duplicate.exact`, then `duplicate.near`: a better copy of its image is kept;
6. `cap`: its source reached its maximum; `mixture`: more of its source would miss the target shares.

Only what passes one step takes part in the next, so an image whose captions all fail a rule never displaces its copy.
(A fraction `of: fetched` also counts what a bound has dropped.)

A pair of an image-only source has no caption: rules on captions neither drop nor require one, whatever `missing` says.
"""

from __future__ import annotations

from fractions import Fraction as Exact
from typing import Annotated, Literal

from pydantic import Field, model_validator

from stages.base.contract import StageConfig
from stages.select.bounds import Bounds, Fraction, Rules

__all__ = ["Bounds", "Contamination", "Crops", "Duplicates", "Fraction", "Near", "Portion", "Rules", "SelectConfig"]


class Near(StageConfig):
    """When two images are near-duplicates: perceptual hashes within a radius, confirmed on 8x8 RGB thumbnails.

    A hash alone confuses plain images (it ignores colour, and in flat areas it is noise). So two images within the
    radius count only if their thumbnails agree by one of two measures; with both null the hash decides.
    """

    hash: Literal["phash", "phash_rgb", "phash_d4"] = "phash"
    """`phash`: 64 bits of the luminance; `phash_rgb`: 64 bits per channel; `phash_d4`: `phash` of a canonical one of
    the eight orientations, which also finds rotated and mirrored copies."""
    radius: Annotated[int, Field(ge=0, le=48)] = 8
    """Bits that may differ. Up to `index.radius` a change re-selects in seconds; above, the index is rebuilt."""
    max_difference: Annotated[float, Field(ge=0, le=255)] | None = 2.0
    """Mean absolute difference of the thumbnails in grey levels (0..255): finds re-encoded and resized copies."""
    max_relative_difference: Annotated[float, Field(ge=0, le=1)] | None = 0.07
    """The same after one common change of brightness is undone, over the thumbnails' own mean absolute deviation:
    finds brightened and darkened copies."""


class Crops(StageConfig):
    """When one image is a crop of another, by up to about 12% of the sides, bordered, mirrored or turned by quarters
    included: their 16x16 patches agree by one of two measures after one was laid over the other.

    The search compares hashes of windows (`stages/index/windows.py`); pictures that are mostly plain take no part.
    """

    min_correlation: Annotated[float, Field(ge=0.9, le=1)] = 0.97
    """Correlation of the low frequencies of the luminance."""
    min_uncovered: Annotated[float, Field(ge=0.95, le=1)] = 0.99
    """Correlation where nothing seems to be laid over the picture, such as a logo or a line of text."""


class Duplicates(StageConfig):
    """Which images of the training sources count as copies of one another."""

    exact: bool = True
    """Equal stored bytes or equal decoded pixels."""
    near: Near | None = None
    """Near-duplicates; null disables the search."""
    survivor: Annotated[list[str], Field(min_length=1)] = ["pixels", "bytes", "uid"]
    """Which of several copies is kept: one with a text before one of an image-only source, then the first difference
    decides: `pixels` (more), `bytes` (more), `source` (the one
    named first in `source`), `uid` (the smaller image uid, always the last criterion), or any numeric column of images:
    the larger value, or, with a minus in front, the smaller (`-text_coverage`); a missing value ranks last."""

    @model_validator(mode="after")
    def _once(self) -> Duplicates:
        names = [key.removeprefix("-") for key in self.survivor]
        if len(set(names)) < len(names):
            raise ValueError(f"survivor={self.survivor} names a key twice")
        return self


class Contamination(StageConfig):
    """Which training pairs occur in a benchmark and are removed, so that no score is inflated."""

    enabled: bool = True
    """Whether to compare with the benchmarks at all."""
    exact: bool = True
    """Equal decoded pixels."""
    near: Near | None = Near()
    """Near-duplicates; null disables the search."""
    crops: Crops | None = Crops()
    """Crops, bordered, mirrored and turned images; null disables the search."""
    min_text_overlap: Annotated[float, Field(gt=0, le=1)] | None = 0.7
    """Minimum share of the caption's n-grams (`index.ngram` words) that occur in a benchmark's captions or questions
    for the caption to count as contaminated; null compares no texts. PaLM (Chowdhery et al., arXiv:2204.02311, section
    8) uses 70% of 8-grams."""


class Portion(StageConfig):
    """A source's part in the mixture."""

    share: Annotated[float, Field(ge=0, le=1)] | None = None
    """This source's share of all samples in an epoch; 0 leaves the source out."""
    weight: Annotated[float, Field(ge=0)] | None = None
    """The same as a relative weight; a mixture has shares or weights, not both."""
    epochs: Annotated[float, Field(gt=0, le=1000)] = 1.0
    """How often an epoch of training shows a pair of this source: 2.5 shows half of its pairs twice and half three
    times; 0.5 keeps half of them."""


class SelectionConfig(StageConfig):
    """`selection`: which of the measured pairs are kept."""

    name: str
    """As in `SELECTION=name`; shown in the report."""
    rules: Rules = Rules()
    """Bounds on signals."""
    duplicates: Duplicates = Duplicates()
    """Copies among the training images."""
    contamination: Contamination = Contamination()
    """Copies of benchmark images and texts."""
    max_pairs: dict[str, Annotated[int, Field(ge=0)]] = {}
    """Source -> most pairs to keep: those with the smallest uid, which is a fixed random sample."""
    mixture: dict[str, Portion] = {}
    """Source -> its part. The largest set with the given shares is kept: of each source the pairs with the smallest
    uids. Sources without a share divide the rest in proportion to their sizes."""

    @model_validator(mode="after")
    def _mixable(self) -> SelectionConfig:
        shares = {name: part.share for name, part in self.mixture.items() if part.share is not None}
        weights = {name: part.weight for name, part in self.mixture.items() if part.weight is not None}
        if shares and weights:
            raise ValueError(f"mixture: {next(iter(shares))} has a share and {next(iter(weights))} a weight; use one")
        total = sum(Exact(str(share)) for share in shares.values())
        if total > 1:
            raise ValueError(f"mixture: the shares add up to {float(total):g}, above 1")
        if weights and not any(weights.values()):
            raise ValueError("mixture: all weights are 0, which keeps nothing")
        return self


class SelectConfig(StageConfig):
    """The whole configuration of the `select` stage."""

    selection: SelectionConfig
    """The preset."""
    private_sources: list[str] = []
    """Sources of which the report may contain only counts and uids."""
