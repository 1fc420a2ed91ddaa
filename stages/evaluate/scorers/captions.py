"""Captions scored against reference captions, overall and by NoCaps' domains."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from stages.evaluate.metrics.captions.frequencies import Frequencies, frequencies_of
from stages.evaluate.metrics.captions.suite import METRICS, SCORES, CaptionMetric, CaptionScorer, ClipSettings
from stages.evaluate.scorers.scored import Scored
from stages.formats.captions import References
from stages.formats.problems import Id

#: The domain of an image that names none.
NO_DOMAIN = "unspecified"
_NOCAPS = ("in-domain", "near-domain", "out-domain")


@dataclass(frozen=True)
class CaptionOptions:
    """What is computed, and how."""

    metrics: Collection[CaptionMetric] = METRICS
    scores: Collection[str] | None = None
    """Of the scores that the metrics give, those that are reported; None reports all."""
    frequencies: Frequencies | None = None
    """CIDEr's document frequencies; None takes those of the references."""
    by_domain: bool = False
    """Whether scores are given by domain. Document frequencies are then those of all references, as on NoCaps' server,
    even if some images only have a candidate."""
    workers: int = 1
    """Processes for METEOR; they change nothing but the time."""
    meteor_jar: bool = False
    """Whether METEOR is computed by the reference's jar."""
    clip: ClipSettings | None = None
    """For CLIPScore; images in the order of the candidates."""


def score_captions(
    references: References, candidates: Sequence[Mapping[Id, str]], options: CaptionOptions
) -> list[Scored]:
    """Score one or several systems' captions (image -> caption) of the same images in the same order.

    Samples are images, in the order of the candidates. Raises UserError for a CLIP model or an image file that is
    broken; any other metric that cannot be computed is reported as unavailable.
    """
    ids = list(candidates[0])
    frequencies = options.frequencies
    if options.by_domain and frequencies is None and len(ids) < len(references.captions):
        frequencies = reference_frequencies(references)
    scorer = CaptionScorer(
        [references.captions[i] for i in ids],
        [metric for metric in METRICS if metric in options.metrics],
        frequencies,
        options.workers,
        options.meteor_jar,
    )
    reported = {name for names in SCORES.values() for name in names} if options.scores is None else set(options.scores)
    scored = []
    for system in scorer.score_all([[captions[i] for i in ids] for captions in candidates], options.clip):
        metrics = [metric.only(reported) for metric in system.scored.values()]
        scored.append(
            Scored(
                metrics=metrics,
                units=ids,
                per_sample={
                    name: metric.per_sample[:, k].tolist() for metric in metrics for k, name in enumerate(metric.names)
                },
                protocol=system.protocol,
                unavailable={name: why for name, why in system.unavailable.items() if name in reported},
                domains=_domains(references, ids) if options.by_domain else {},
            )
        )
    return scored


def reference_frequencies(references: References) -> Frequencies:
    """The document frequencies of all reference captions of a file."""
    return frequencies_of(CaptionScorer(list(references.captions.values())).reference_tokens())


def _domains(references: References, ids: Sequence[Id]) -> dict[str, np.ndarray]:
    """Domain -> rows of its images; NoCaps' own domains first, in its order."""
    of_image = np.array([references.domains.get(i, NO_DOMAIN) for i in ids])
    names = sorted(set(of_image.tolist()), key=lambda name: (name not in _NOCAPS, name))
    return {name: np.flatnonzero(of_image == name) for name in names}
