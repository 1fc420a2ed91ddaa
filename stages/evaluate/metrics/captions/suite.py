"""All caption metrics at once; one that cannot be computed is reported with the reason, and the others are scored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from stages.evaluate.metrics.additive import Additive, mean
from stages.evaluate.metrics.captions import bleu, cider, rouge
from stages.evaluate.metrics.captions.frequencies import Frequencies
from stages.evaluate.metrics.captions.ngrams import Counted, count
from stages.evaluate.metrics.java import Unavailable
from stages.evaluate.metrics.ptb.tokenize import PtbTokenizer

CaptionMetric = Literal["bleu", "meteor", "rouge_l", "cider_d", "spice", "clipscore"]
METRICS: tuple[CaptionMetric, ...] = get_args(CaptionMetric)
#: The scores each metric gives, as coco-caption (and CLIPScore's authors) name them.
SCORES: dict[CaptionMetric, tuple[str, ...]] = {
    "bleu": bleu.NAMES,
    "meteor": ("METEOR",),
    "rouge_l": ("ROUGE_L",),
    "cider_d": ("CIDEr",),
    "spice": ("SPICE",),
    "clipscore": ("CLIPScore", "RefCLIPScore"),
}
#: Which published metric each is; part of a result's protocol.
ALGORITHMS: dict[CaptionMetric, str] = {
    "bleu": "coco-caption's BLEU-1..4, closest reference length",
    "meteor": "METEOR 1.5, English, normalised, corpus score from summed statistics",
    "rouge_l": "coco-caption's ROUGE-L, beta 1.2",
    "cider_d": "CIDEr-D, n = 1..4, sigma 6",
    "spice": "SPICE 1.0, F-score of all propositions, CoreNLP 3.6.0",
    "clipscore": "",  # described in its own module
}


@dataclass(frozen=True)
class ClipSettings:
    """What CLIPScore needs besides captions."""

    model: Path
    """A local folder with a CLIP model in Hugging Face format."""
    images: Sequence[Path]
    """Each image's file, in the order of the candidates."""


@dataclass(frozen=True)
class CaptionScores:
    """Scores of a set of captions."""

    scored: dict[CaptionMetric, Additive]
    """By metric; their names are those of :data:`SCORES`."""
    unavailable: dict[str, str]
    """Score -> why it could not be computed."""
    protocol: dict[str, Any]
    """How the scores were computed."""

    def total(self, chosen: np.ndarray | None = None) -> dict[str, float]:
        """Name -> score over all images, or those chosen."""
        return {name: value for one in self.scored.values() for name, value in one.total(chosen).items()}

    def per_image(self) -> dict[str, list[float]]:
        """Name -> score of each image."""
        return {name: one.per_sample[:, i].tolist() for one in self.scored.values() for i, name in enumerate(one.names)}


@dataclass
class CaptionScorer:
    """Scores raw captions against the same references, of one system or several."""

    references: Sequence[Sequence[str]]
    """One or more per image."""
    metrics: Sequence[CaptionMetric] = METRICS
    frequencies: Frequencies | None = None
    """CIDEr's document frequencies; None takes those of `references`."""
    workers: int = 1
    """Processes that METEOR may use; changes nothing but the time."""
    meteor_jar: bool = False
    """Whether METEOR is computed by the reference's jar, one Java for the whole run, instead of our exact METEOR."""
    tokenizer: PtbTokenizer = field(default_factory=PtbTokenizer)

    def __post_init__(self) -> None:
        for position, refs in enumerate(self.references):
            if not refs:
                raise ValueError(f"image number {position} has no reference caption")

    def score(self, candidates: Sequence[str], clip: ClipSettings | None = None) -> CaptionScores:
        """One candidate per image, in the order of the references; see :meth:`score_all`."""
        return self.score_all([candidates], clip)[0]

    def score_all(self, systems: Sequence[Sequence[str]], clip: ClipSettings | None = None) -> list[CaptionScores]:
        """Several systems' candidates, one per image; what needs Java starts it once for all of them.

        Raises ValueError when candidates and references differ in number, UserError for a CLIP model or an image that
        is broken; whatever else cannot be computed is reported in the result.
        """
        for candidates in systems:
            if len(candidates) != len(self.references):
                raise ValueError(f"{len(candidates)} candidates for the references of {len(self.references)} images")
        run = _Run(self, systems, clip)
        scored: dict[CaptionMetric, list[Additive]] = {}
        unavailable: dict[str, str] = {}
        for metric in METRICS:
            if metric in self.metrics:
                try:
                    scored[metric] = run.metric(metric)
                except Unavailable as error:
                    unavailable.update(dict.fromkeys(SCORES[metric], str(error)))
        protocol: dict[str, Any] = {"tokenizer": self.tokenizer.describe()}
        protocol["metrics"] = {metric: text for metric in scored if (text := _description(metric, self))}
        return [
            CaptionScores({metric: of[i] for metric, of in scored.items()}, unavailable, protocol)
            for i in range(len(systems))
        ]

    def reference_tokens(self) -> list[list[str]]:
        """The references, tokenised."""
        return _Run(self, [], None).tokens[1]


@dataclass
class _Run:
    scorer: CaptionScorer
    systems: Sequence[Sequence[str]]
    clip: ClipSettings | None

    @cached_property
    def tokens(self) -> tuple[list[list[str]], list[list[str]]]:
        """Of each system's candidates, and of the references: all in one call, so that Java is started once."""
        groups = [*self.systems, *self.scorer.references]
        tokens = iter(self.scorer.tokenizer.tokenize([caption for group in groups for caption in group]))
        found = [[next(tokens) for _ in group] for group in groups]
        return found[: len(self.systems)], found[len(self.systems) :]

    @cached_property
    def all_tokens(self) -> tuple[list[str], list[list[str]]]:
        """The systems one after the other, and the references as often."""
        systems, references = self.tokens
        return [caption for candidates in systems for caption in candidates], references * len(systems)

    @cached_property
    def counted(self) -> list[Counted]:
        systems, references = self.tokens
        return [count(candidates, references) for candidates in systems]

    def metric(self, metric: CaptionMetric) -> list[Additive]:
        """One per system. Raises Unavailable."""
        made: dict[CaptionMetric, Callable[[], list[Additive]]] = {
            "bleu": lambda: [bleu.bleu(counted) for counted in self.counted],
            "meteor": self._meteor,
            "rouge_l": lambda: [rouge.rouge_l(candidates, self.tokens[1]) for candidates in self.tokens[0]],
            "cider_d": self._cider,
            "spice": self._spice,
            "clipscore": self._clip,
        }
        return made[metric]()

    def _by_system(self, everything: Additive) -> list[Additive]:
        """Scores of :attr:`all_tokens`, by system."""
        images = len(self.scorer.references)
        return [everything.take(np.arange(i * images, (i + 1) * images)) for i in range(len(self.systems))]

    def _cider(self) -> list[Additive]:
        given = self.scorer.frequencies
        if given is not None:
            return [cider.cider_d(counted, given.of(counted), given.images) for counted in self.counted]
        if len(self.scorer.references) < 2:
            raise Unavailable(
                "with the references of a single image every n-gram is in all of them, so CIDEr is 0 whatever the "
                "caption; give the frequencies of a larger collection with --document-frequencies"
            )
        return [cider.cider_d(counted) for counted in self.counted]

    def _meteor(self) -> list[Additive]:
        from stages.evaluate.metrics.meteor import meteor, score_of_sums

        if self.scorer.meteor_jar:
            from stages.evaluate.metrics.meteor.jar import MeteorJar

            with MeteorJar() as jar:
                rows = np.array([jar.statistics(c, refs).row() for c, refs in zip(*self.all_tokens, strict=True)])
        else:
            rows = meteor(*self.all_tokens, workers=self.scorer.workers).statistics
        sums = rows.astype(np.float64)
        names, each = SCORES["meteor"], score_of_sums(sums)[:, None]
        return self._by_system(Additive(names, each, sums, lambda sums: score_of_sums(sums)[..., None]))

    def _spice(self) -> list[Additive]:
        from stages.evaluate.metrics.spice import spice

        return self._by_system(mean("SPICE", spice(*self.all_tokens).per_image))

    def _clip(self) -> list[Additive]:
        from stages.evaluate.metrics.clipscore import clipscore

        if self.clip is None:
            raise Unavailable("no CLIP model; name its folder with --clip-model and the images' with --images")
        scored = []
        for candidates in self.systems:
            found = clipscore(self.clip.images, candidates, self.scorer.references, self.clip.model)
            each = np.array([found.clip, found.ref_clip], dtype=np.float64).T
            sums = np.concatenate([each, np.ones((len(each), 1))], axis=1)
            scored.append(Additive(SCORES["clipscore"], each, sums, lambda sums: sums[..., :2] / sums[..., 2:]))
        return scored


def _description(metric: CaptionMetric, scorer: CaptionScorer) -> str:
    if metric == "clipscore":
        from stages.evaluate.metrics.clipscore import PROTOCOL

        return PROTOCOL
    if metric == "meteor":
        return f"{ALGORITHMS[metric]}, by {'its jar' if scorer.meteor_jar else 'an exact implementation of our own'}"
    if metric != "cider_d":
        return ALGORITHMS[metric]
    given = scorer.frequencies
    over = f"{given.images:,} images, given" if given else f"the {len(scorer.references):,} images scored"
    return f"{ALGORITHMS[metric]}, document frequencies over {over}"
