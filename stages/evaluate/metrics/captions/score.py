"""All caption metrics at once; one that cannot be computed says why and leaves the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stages.evaluate.metrics.captions.bleu import bleu
from stages.evaluate.metrics.captions.cider import cider_d
from stages.evaluate.metrics.captions.rouge import rouge_l
from stages.evaluate.metrics.ptb.tokenize import tokenize

#: What the protocol of a result says of its tokenization.
TOKENIZATION = (
    "PTB, lower case, punctuation dropped; pairmill's own, equal to Stanford CoreNLP 3.4.1 as run by pycocoevalcap 1.2 "
    "on COCO's captions"
)


@dataclass(frozen=True)
class CaptionScores:
    """Scores of a set of captions."""

    corpus: dict[str, float]
    """Metric -> score: `BLEU-1`..`BLEU-4` and `ROUGE-L` in [0, 1], `CIDEr` in [0, 10]."""
    per_image: dict[str, list[float]]
    """Metric -> score of each image, in the order given."""
    unavailable: dict[str, str]
    """Metric -> why it is not among the scores."""


def score(candidates: Sequence[str], references: Sequence[Sequence[str]], metrics: Sequence[str]) -> CaptionScores:
    """Score raw captions, one candidate and its references per image, by the metrics named.

    Names: `bleu`, `rouge_l`, `cider_d`, `meteor`, `spice`. Raises ValueError when an image has no reference.
    """
    for position, refs in enumerate(references):
        if not refs:
            raise ValueError(f"image number {position} has no reference caption")
    corpus: dict[str, float] = {}
    per_image: dict[str, list[float]] = {}
    unavailable = {name: "not part of this version" for name in metrics if name not in ("bleu", "rouge_l", "cider_d")}
    if not candidates:
        return CaptionScores(corpus, per_image, dict.fromkeys(metrics, "no captions"))
    cands = tokenize(candidates)
    tokens = iter(tokenize([reference for refs in references for reference in refs]))
    refs_tokens = [[next(tokens) for _ in refs] for refs in references]
    if "bleu" in metrics:
        found = bleu(cands, refs_tokens)
        for n, value in enumerate(found.corpus):
            corpus[f"BLEU-{n + 1}"] = value
            per_image[f"BLEU-{n + 1}"] = found.per_image[n]
    if "rouge_l" in metrics:
        per_image["ROUGE-L"] = rouge_l(cands, refs_tokens)
    if "cider_d" in metrics:
        per_image["CIDEr"] = cider_d(cands, refs_tokens)
    for name in ("ROUGE-L", "CIDEr"):
        if name in per_image:
            corpus[name] = sum(per_image[name]) / len(per_image[name])
    return CaptionScores(corpus, per_image, unavailable)
