"""Bounds on signals: schema of `selection.rules`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AliasChoices, Field, model_validator

from stages.base.contract import FingerprintedUnless, StageConfig

Side = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Cosine = Annotated[float, Field(ge=-1, le=1)]

#: One bound, or one per lid.176 code; `other` is for captions in any other language, or in none.
PerLanguage = Cosine | Annotated[dict[str, Cosine], Field(min_length=1)]

#: How a rule treats a row without a value.
Missing = Literal["pass", "drop"]


class Bounds(StageConfig):
    """Values that a column may have; both ends are inclusive."""

    min: float | None = None
    """Smallest value kept."""
    max: float | None = None
    """Largest value kept."""
    among: Annotated[list[str | bool | int] | None, Field(validation_alias=AliasChoices("in", "among"))] = None
    """The only values kept; written `in: [...]`."""
    missing: Missing | None = None
    """As `rules.missing`, for this column."""

    @model_validator(mode="after")
    def _bounded(self) -> Bounds:
        if self.min is None and self.max is None and self.among is None:
            raise ValueError("give min, max or in")
        if self.among is not None and (self.min is not None or self.max is not None):
            raise ValueError("a list of values (in) needs no min and no max")
        if self.among == []:
            raise ValueError("an empty list keeps nothing")
        _rising(self, "min", "max")
        return self


class Fraction(StageConfig):
    """The best share of the pairs (or of the images, for a signal of images).

    The number kept is exact: the share of the rows that have a value, rounded down, ties by the smaller uid. DataComp's
    `clip_score` baselines do the same over their whole pool (`get_threshold` in mlfoundations/datacomp), except that
    they keep every row that ties with the last one.
    """

    top: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share with the largest values."""
    bottom: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share with the smallest values."""
    within: Literal["all", "source"] = "all"
    """Whether all sources are ranked together or each source separately."""
    of: Literal["fetched", "passed"] = "fetched"
    """The whole of which it is a share: everything fetched and decoded, as in DataComp (rules and fractions then
    intersect, in any order), or only what passed all bounds and the fractions before this one."""

    @model_validator(mode="after")
    def _one_end(self) -> Fraction:
        if (self.top is None) == (self.bottom is None):
            raise ValueError("give exactly one of top and bottom")
        return self


class Rules(StageConfig):
    """Bounds on signals, each inclusive: a value on the bound is kept. A null bound is no rule."""

    missing: Missing = "pass"
    """How to treat a row without the value that a rule compares, e.g. because its source's list lacks it. An image that
    does not decode is always dropped, as is a caption without words if `languages` is set; an image-only sample is
    never dropped for a value that a text would have."""
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
    min_sharpness: Annotated[float, Field(ge=0)] | None = None
    """Variance of the Laplacian; small for blurred and blank images."""
    max_nsfw: Share | None = None
    """Probability that the image is not safe for work, measured."""
    max_text_coverage: Share | None = None
    """Share of the image that text covers, measured."""
    min_faces: Count | None = None
    """Faces detected."""
    max_faces: Count | None = None
    """Faces detected."""
    languages: Annotated[list[str], Field(min_length=1)] | None = None
    """lid.176 codes (`en`, `de`, ...); the rule is called `rule.language`. It is the first of the rules on captions:
    that one is Chinese says more than that it has one word between white space."""
    language_confidence: Annotated[Share | None, FingerprintedUnless(None)] = None
    """Probability of the detected language below which `languages` does not judge, so that the caption passes it; null
    judges every caption. lid.176 takes some short captions for another language, nearly always with a low probability
    (docs/selection.md)."""
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
    min_letters: Share | None = None
    """Share of the caption's characters that are letters."""
    max_digits: Share | None = None
    """Share of the caption's characters that are digits."""
    min_language_score: Share | None = None
    """Probability of the detected language."""
    min_similarity: PerLanguage | None = None
    """CLIP ViT-B/32 similarity as listed by the source; one number, or one per language:
    `{en: 0.28, other: 0.26}`."""
    min_similarity_l14: PerLanguage | None = None
    """CLIP ViT-L/14 similarity as listed by the source."""
    min_clip_similarity: PerLanguage | None = None
    """Similarity by the CLIP model of `signals.clip`, measured."""
    min_aesthetic: float | None = None
    """Aesthetic score as listed by the source."""
    max_unsafe: Share | None = None
    """Probability of unsafe content as listed by the source."""
    max_watermark: Share | None = None
    """Probability of a watermark as listed by the source."""
    where: dict[str, Bounds] = {}
    """Bounds on any other column of the index, of images or pairs, including those of families from other packages:
    `{sharpness: {min: 20}, format: {in: [JPEG, WEBP]}}`. The rule is called `rule.<column>`."""
    fractions: dict[str, Fraction] = {}
    """Shares by rank in any numeric column: `{similarity: {top: 0.3}}`. The rule is called `rule.top_<column>` or
    `rule.bottom_<column>`; fractions come after all bounds, in alphabetical order of the columns."""

    @model_validator(mode="after")
    def _ordered(self) -> Rules:
        _rising(self, "min_side", "max_side")
        _rising(self, "min_faces", "max_faces")
        _rising(self, "min_characters", "max_characters")
        _rising(self, "min_words", "max_words")
        return self


def _rising(model: Any, low: str, high: str) -> None:
    a, b = getattr(model, low), getattr(model, high)
    if a is not None and b is not None and a > b:
        raise ValueError(f"{low}={a} is above {high}={b}, which keeps nothing")
