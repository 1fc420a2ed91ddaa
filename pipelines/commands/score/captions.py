"""`score captions` and `score nocaps`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.commands.score.task import Scored, Task, described
from stages.base.contract import UserError
from stages.evaluate.formats.captions import read_candidates, read_references
from stages.evaluate.formats.problems import Id, Problems, shown
from stages.evaluate.metrics.captions.frequencies import (
    Frequencies,
    frequencies_of,
    read_frequencies,
    write_frequencies,
)
from stages.evaluate.metrics.captions.suite import (
    METRICS,
    SCORES,
    CaptionMetric,
    CaptionScorer,
    CaptionScores,
    ClipSettings,
)

_DOMAINS = ("in-domain", "near-domain", "out-domain")


class Captions(Task):
    """Captions in COCO's formats."""

    def __init__(self, arguments: argparse.Namespace, problems: Problems) -> None:
        super().__init__(arguments, problems)
        self.metrics = chosen_metrics(arguments)
        given = arguments.document_frequencies
        self.frequencies: Frequencies | None = read_frequencies(given) if given else None
        self.references = read_references(arguments.references, problems, arguments.karpathy_split)
        self.by_domain = arguments.what == "nocaps"
        if self.by_domain and not self.references.domains:
            raise UserError(f"{arguments.references}: its images have no domain; score it with `score captions`")

    def read(self, file: Path) -> dict[Id, Any]:
        """Image -> caption."""
        return dict(read_candidates(file, self.references, self.problems))

    def score(self, results: Sequence[tuple[Path, dict[Id, Any]]]) -> list[Scored]:
        """All with the same references and tokens."""
        ids = list(results[0][1])
        captions = self.references.captions
        frequencies = self.frequencies
        scorer = CaptionScorer(
            [captions[i] for i in ids],
            self.metrics,
            frequencies,
            self.arguments.workers,
            self.arguments.meteor_jar,
        )
        if self.by_domain and frequencies is None and len(ids) < len(captions):
            # A partial result is judged by the whole benchmark's frequencies all the same.
            scorer.frequencies = self._frequencies_of_all()
        systems = [[answers[i] for i in ids] for _, answers in results]
        scored = scorer.score_all(systems, self._clip(ids))
        return [
            self._scored(scorer, file, ids, candidates, found)
            for (file, _), candidates, found in zip(results, systems, scored, strict=True)
        ]

    def _scored(
        self, scorer: CaptionScorer, file: Path, ids: list[Id], candidates: list[str], found: CaptionScores
    ) -> Scored:
        wanted = asked_scores(self.arguments)
        samples: dict[str, list[Any]] = {"image_id": list(ids), "caption": candidates}
        if self.by_domain:
            samples["domain"] = [self.references.domains.get(i) for i in ids]
        scores = [one.only(wanted) for one in found.scored.values()]
        for one in scores:
            samples.update({name: one.per_sample[:, k].tolist() for k, name in enumerate(one.names)})
        return Scored(
            scores=scores,
            units=list(ids),
            unit="images",
            n=len(ids),
            samples=samples,
            protocol={
                **described(
                    references=self.arguments.references,
                    candidates=file,
                    document_frequencies=self.arguments.document_frequencies,
                ),
                **found.protocol,
                "images": len(ids),
                "references_per_image": sum(map(len, scorer.references)) / len(ids),
            },
            unavailable={name: why for name, why in found.unavailable.items() if name in wanted},
            domains=self._domains(ids) if self.by_domain else {},
        )

    def _domains(self, ids: list[Id]) -> dict[str, np.ndarray]:
        of = [self.references.domains.get(i, "unspecified") for i in ids]
        names = sorted(set(of), key=lambda name: (name not in _DOMAINS, name))
        return {name: np.flatnonzero(np.array([domain == name for domain in of])) for name in names}

    def _clip(self, ids: list[Id]) -> ClipSettings | None:
        folder = self.arguments.clip_model
        if folder is None:
            return None
        if self.arguments.images is None:
            raise UserError("--clip-model: CLIPScore looks at the images; name their folder with --images")
        return ClipSettings(folder, [self.arguments.images / self._file_name(i) for i in ids])

    def _file_name(self, image_id: Id) -> str:
        pattern = self.arguments.image_pattern
        name = self.references.names.get(image_id)
        if name is None and "{file_name" in pattern:
            raise UserError(
                f"{self.arguments.references}: image {shown(image_id)} has no file_name; say how files are called with "
                "--image-pattern, e.g. {image_id:012d}.jpg"
            )
        try:
            return str(pattern.format(image_id=image_id, file_name=name))
        except (KeyError, ValueError, IndexError, AttributeError, TypeError):
            raise UserError(
                f"--image-pattern {pattern}: not possible for image {shown(image_id)}; "
                "use {file_name} or {image_id}"
            ) from None

    def report(self, scored: Scored) -> dict[str, Any]:
        """`metrics`, `unavailable`, and `domains` where images have one."""
        found: dict[str, Any] = {"metrics": scored.total(), "unavailable": scored.unavailable}
        if scored.domains:
            found["domains"] = {
                domain: {
                    "n": len(rows),
                    "metrics": {k: v for one in scored.scores for k, v in one.total(rows).items()},
                }
                for domain, rows in scored.domains.items()
            }
        return found

    def write_frequencies(self, file: Path) -> None:
        """Those of all references of the file."""
        write_frequencies(self._frequencies_of_all(), file)

    def _frequencies_of_all(self) -> Frequencies:
        return frequencies_of(CaptionScorer(list(self.references.captions.values())).reference_tokens())


def chosen_metrics(arguments: argparse.Namespace) -> list[CaptionMetric]:
    """The metrics that give any of the scores asked for. Raises UserError for a name that none has."""
    wanted = asked_scores(arguments)
    return [metric for metric in METRICS if set(SCORES[metric]) & wanted]


def asked_scores(arguments: argparse.Namespace) -> set[str]:
    """The names of the scores asked for; all but CLIPScore's, which needs a model, where nothing is said."""
    if arguments.metrics is None:
        without = () if arguments.clip_model else SCORES["clipscore"]
        return {name for names in SCORES.values() for name in names} - set(without)
    known: dict[str, tuple[str, ...]] = {name.lower(): (name,) for names in SCORES.values() for name in names}
    known |= {str(metric): names for metric, names in SCORES.items()}
    known |= {"rouge": SCORES["rouge_l"], "cider-d": SCORES["cider_d"], "rouge-l": SCORES["rouge_l"]}
    found: set[str] = set()
    for word in filter(None, (word.strip() for word in arguments.metrics.split(","))):
        if word.lower() not in known:
            names = ", ".join(name for names in SCORES.values() for name in names)
            raise UserError(f"--metrics {word}: no such metric; there are {names}, and bleu for all four of BLEU")
        found.update(known[word.lower()])
    if not found:
        raise UserError("--metrics: no metric named; leave it out for all of them")
    return found
