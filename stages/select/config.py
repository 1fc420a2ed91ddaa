"""What is kept: rules over signals, benchmarks, copies, mixture. Schema of `conf/selection/*.yaml`.

Every pair gets the first reason that applies, in this order:

1. `forgotten`: it was taken out by `pairmill forget`;
2. `download.<status>`: its image was never fetched;
3. `rule.undecodable`, then `rule.<name>`: the bounds on its image and then on its caption, each in the order of
   `Rules`' fields and then of `where`; then `fractions`;
4. `benchmark.<name>`: its image is in a benchmark, then `benchmark_text.<name>`: its caption is; benchmarks in
   alphabetical order;
5. `duplicate.exact`, then `duplicate.near`: a better copy of its image is kept;
6. `cap`: its source had enough; `mixture`: more of its source would miss the target shares.

Only what came through one step takes part in the next, so an image whose captions all fail a rule never displaces its
copy. (A fraction `of: fetched` counts what a bound has dropped, too.)
"""

from __future__ import annotations

from fractions import Fraction as Exact
from typing import Annotated, Literal

from pydantic import Field, model_validator

from stages.base.contract import StageConfig
from stages.select.bounds import Bounds, Fraction, Rules

__all__ = ["Bounds", "Contamination", "Duplicates", "Fraction", "Near", "Portion", "Rules", "SelectConfig"]


class Near(StageConfig):
    """When two images are the same picture: perceptual hashes within a radius, confirmed on 8x8 RGB thumbnails.

    A hash alone takes plain pictures for one another (it ignores colour, and in flat areas it is noise). So a pair of
    images within the radius counts only if its thumbnails agree in one of two ways; with both null the hash decides.
    """

    hash: Literal["phash", "phash_rgb", "phash_d4"] = "phash"
    """`phash`: 64 bits of the luminance; `phash_rgb`: 64 bits per channel; `phash_d4`: `phash` in the one of eight
    positions that makes it smallest, which finds turned and mirrored copies too."""
    radius: Annotated[int, Field(ge=0, le=48)] = 8
    """Bits that may differ. Up to `index.radius` a change re-selects in seconds; above, the index is made again."""
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
    survivor: Annotated[list[str], Field(min_length=1)] = ["pixels", "bytes", "uid"]
    """Which of several copies is kept, first difference decides: `pixels` (more), `bytes` (more), `source` (the one
    named first in `source`), `uid` (the smaller image uid, always the last resort), or any numeric column of images:
    the larger value, or, with a minus in front, the smaller (`-text_coverage`); no value is the worst."""

    @model_validator(mode="after")
    def _once(self) -> Duplicates:
        names = [key.removeprefix("-") for key in self.survivor]
        if len(set(names)) < len(names):
            raise ValueError(f"survivor={self.survivor} names a key twice")
        return self


class Contamination(StageConfig):
    """Which training pairs are in a benchmark and must go, so that no score is inflated."""

    enabled: bool = True
    """Whether to look at the benchmarks at all."""
    exact: bool = True
    """Equal decoded pixels."""
    near: Near | None = Near()
    """Nearly equal pictures; null looks for none."""
    min_text_overlap: Annotated[float, Field(gt=0, le=1)] | None = 0.7
    """Share of the caption's n-grams (`index.ngram` words) that a benchmark's captions or questions hold, from which
    on the caption counts as one of theirs; null compares no texts. 70% of 8-grams is how PaLM (Chowdhery et al.,
    arXiv:2204.02311, section 8) calls an example contaminated."""


class Portion(StageConfig):
    """A source's part in the mixture."""

    share: Annotated[float, Field(ge=0, le=1)] | None = None
    """Of all samples that an epoch shows, the part from this source; 0 leaves it out."""
    weight: Annotated[float, Field(ge=0)] | None = None
    """The same as a relative number; a mixture has shares or weights, not both."""
    epochs: Annotated[float, Field(gt=0, le=1000)] = 1.0
    """How often an epoch of training shows a pair of this source: 2.5 shows half of its pairs twice and half three
    times; 0.5 keeps half of them."""


class SelectionConfig(StageConfig):
    """`selection`: what is kept of what was measured."""

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
    """Source -> its part. The largest set is kept that has the shares asked for: of each source the pairs with the
    smallest uids. Sources without a share divide what the shares leave of 1 by their natural sizes."""

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
    """All that the `select` stage depends on."""

    selection: SelectionConfig
    """The preset."""
    private_sources: list[str] = []
    """Sources of which only counts and uids may appear in the report."""
