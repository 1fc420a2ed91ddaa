"""`score captions` and `score nocaps`: captions in COCO's formats."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines.commands.score.base import (
    ResultsScorer,
    add_report_options,
    add_workers_option,
    described,
    identified,
)
from pipelines.commands.score.output import note, print_json
from pipelines.commands.score.report import note_problems, read_results, refuse, report
from stages.base.contract import UserError
from stages.evaluate.metrics.captions.frequencies import read_frequencies, write_frequencies
from stages.evaluate.metrics.captions.suite import METRICS, SCORES, ClipSettings
from stages.evaluate.scorers.captions import CaptionOptions, reference_frequencies, score_captions
from stages.evaluate.scorers.scored import Scored
from stages.formats.captions import read_candidates, read_references
from stages.formats.json_file import TextResults
from stages.formats.problems import Id, printable

HELP = "COCO annotation and results JSON: BLEU, METEOR, ROUGE-L, CIDEr-D, SPICE, CLIPScore"
NOCAPS_HELP = "the same for NoCaps: in-, near- and out-domain and overall, document frequencies over the whole set"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `score captions` and `score nocaps`."""
    parser.add_argument("--references", type=Path, required=True, metavar="REFS.json", help="COCO or Karpathy JSON")
    parser.add_argument("--candidates", type=Path, metavar="CANDS.json", help="[{image_id, caption}]")
    parser.add_argument(
        "--write-document-frequencies",
        type=Path,
        metavar="FILE.parquet",
        help="write the references' document frequencies, with or without scoring candidates",
    )
    add_options(parser)
    add_report_options(parser)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options that `score compare` has as well."""
    parser.add_argument(
        "--metrics", metavar="LIST", help="e.g. CIDEr,Bleu_4,METEOR (default: all that can be computed here)"
    )
    parser.add_argument(
        "--document-frequencies", type=Path, metavar="FILE.parquet", help="CIDEr's, of a larger collection"
    )
    parser.add_argument("--karpathy-split", default="test", metavar="SPLIT", help="of a Karpathy JSON (default: test)")
    add_workers_option(parser)
    parser.add_argument(
        "--meteor-jar",
        action="store_true",
        help="compute METEOR by its own jar instead of our exact implementation (needs Java)",
    )
    parser.add_argument("--clip-model", type=Path, metavar="FOLDER", help="a CLIP model, for CLIPScore")
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="the images, for CLIPScore")
    parser.add_argument(
        "--image-pattern",
        metavar="PATTERN",
        default="{file_name}",
        help="file name below --images, e.g. {image_id:012d}.jpg (default: {file_name})",
    )


def run(arguments: argparse.Namespace) -> int:
    """Score captions, or write the references' document frequencies, or both."""
    return _run(CaptionResultsScorer(arguments), arguments)


def run_nocaps(arguments: argparse.Namespace) -> int:
    """The same with scores by domain."""
    return _run(CaptionResultsScorer(arguments, by_domain=True), arguments)


def _run(scorer: CaptionResultsScorer, arguments: argparse.Namespace) -> int:
    frequencies: Path | None = arguments.write_document_frequencies
    if arguments.candidates is not None:
        results = read_results(scorer, arguments.candidates, arguments)
        if frequencies is not None:
            scorer.write_frequencies(frequencies)
            note(f"document frequencies: {frequencies}")
        return report(scorer, results, arguments)
    if frequencies is None:
        raise UserError("--candidates: missing; name the results JSON, [{image_id, caption}]")
    refuse(scorer.problems, arguments)
    scorer.write_frequencies(frequencies)
    note(f"document frequencies: {frequencies}")
    if arguments.json:
        partial = {"partial": scorer.problems.to_json()} if scorer.problems else {}
        print_json({"document_frequencies": str(frequencies), **partial})
    note_problems(scorer.problems)
    return 0


class CaptionResultsScorer(ResultsScorer[TextResults]):
    """Scores captions on the references."""

    def __init__(self, arguments: argparse.Namespace, by_domain: bool = False) -> None:
        self._arguments = arguments
        self._scores = chosen_scores(arguments)
        given = arguments.document_frequencies
        self._frequencies = read_frequencies(given) if given else None
        self._references = read_references(arguments.references, arguments.karpathy_split)
        self._by_domain = by_domain
        if by_domain and not self._references.domains:
            raise UserError(f"{arguments.references}: its images have no domain; score it with `score captions`")
        self.problems = self._references.problems

    def read(self, file: Path) -> TextResults:
        """Image -> caption."""
        return read_candidates(file, self._references)

    def score(self, results: Sequence[TextResults], ids: Sequence[Id]) -> list[Scored]:
        """All with the same references and tokens."""
        options = CaptionOptions(
            metrics=[metric for metric in METRICS if self._scores & set(SCORES[metric])],
            scores=self._scores,
            frequencies=self._frequencies,
            by_domain=self._by_domain,
            workers=self._arguments.workers,
            meteor_jar=self._arguments.meteor_jar,
            clip=self._clip(ids),
        )
        scored = score_captions(self._references, [{i: one.texts[i] for i in ids} for one in results], options)
        return [self._identified(file, ids, system) for file, system in zip(results, scored, strict=True)]

    def _identified(self, results: TextResults, ids: Sequence[Id], scored: Scored) -> Scored:
        columns: dict[str, list[Any]] = {"image_id": list(ids), "caption": [results.texts[i] for i in ids]}
        if self._by_domain:
            columns["domain"] = [self._references.domains.get(i) for i in ids]
        files = described(
            references=self._arguments.references,
            candidates=results.file,
            document_frequencies=self._arguments.document_frequencies,
        )
        references = sum(len(self._references.captions[i]) for i in ids)
        size = {"images": len(ids), "references_per_image": references / len(ids)}
        return identified(scored, columns, files | size)

    def _clip(self, ids: Sequence[Id]) -> ClipSettings | None:
        folder = self._arguments.clip_model
        if folder is None:
            return None
        if self._arguments.images is None:
            raise UserError("--clip-model: CLIPScore looks at the images; name their folder with --images")
        return ClipSettings(folder, [self._arguments.images / self._file_name(i) for i in ids])

    def _file_name(self, image_id: Id) -> str:
        pattern = self._arguments.image_pattern
        name = self._references.names.get(image_id)
        if name is None and "{file_name" in pattern:
            raise UserError(
                f"{self._arguments.references}: image {printable(image_id)} has no file_name; name its file with "
                "--image-pattern, e.g. {image_id:012d}.jpg"
            )
        try:
            return str(pattern.format(image_id=image_id, file_name=name))
        except (KeyError, ValueError, IndexError, AttributeError, TypeError):
            raise UserError(
                f"--image-pattern {pattern}: not possible for image {printable(image_id)}; "
                "use {file_name} or {image_id}"
            ) from None

    def report(self, scored: Scored) -> dict[str, Any]:
        """`metrics`, `unavailable`, and `domains` where images have one."""
        found: dict[str, Any] = {"metrics": scored.figures(), "unavailable": scored.unavailable}
        if scored.domains:
            found["domains"] = {
                domain: {"n": len(rows), "metrics": scored.total(rows)} for domain, rows in scored.domains.items()
            }
        return found

    def write_frequencies(self, file: Path) -> None:
        """Write those of all references of the file."""
        write_frequencies(reference_frequencies(self._references), file)


def chosen_scores(arguments: argparse.Namespace) -> set[str]:
    """The names of the scores that `--metrics` lists; by default all, but CLIPScore's only with a model.

    Raises UserError for an unknown name.
    """
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
