"""`score compare`: two results on the same references, by paired bootstrap."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from pipelines.commands.score import captions, refexp, retrieval, vqa
from pipelines.commands.score.base import ResultsScorer, add_common_options
from pipelines.commands.score.output import figure, print_json, print_line, print_table
from pipelines.commands.score.report import describe, note_problems, refuse
from stages.base.contract import UserError
from stages.evaluate.metrics.bootstrap import Resampling, compare
from stages.formats.json_file import read_json

HELP = "two results on the same references: difference, interval and p-value by paired bootstrap"
#: Option of the references -> option of the two results.
_RESULTS_OPTION = {"references": "candidates", "annotations": "results", "text_to_image": "scores"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `score compare`."""
    parser.add_argument("--references", type=Path, metavar="REFS.json", help="with --candidates: captions")
    parser.add_argument("--candidates", type=Path, nargs=2, metavar=("FIRST", "SECOND"))
    parser.add_argument("--annotations", type=Path, metavar="A.json", help="with --results: VQA, or boxes")
    parser.add_argument("--results", type=Path, nargs=2, metavar=("FIRST", "SECOND"))
    parser.add_argument("--text-to-image", type=Path, metavar="MAP.json", help="with --scores: retrieval")
    parser.add_argument("--scores", type=Path, nargs=2, metavar=("FIRST", "SECOND"))
    captions.add_options(parser)
    vqa.add_options(parser)
    refexp.add_options(parser)
    add_common_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Score both on the samples that both have, and print second minus first."""
    scorer, files = _scorer(arguments)
    # The same file named twice is read once.
    read = {file: scorer.read(file) for file in dict.fromkeys(files)}
    results = [read[file] for file in files]
    problems = scorer.problems + results[0].problems + results[1].problems
    refuse(problems, arguments)
    in_second = set(results[1].ids)
    common = [key for key in results[0].ids if key in in_second]
    if not common:
        raise UserError(f"{files[0]} and {files[1]} have no sample in common; are they of the same references?")
    first, second = scorer.score(results, common)
    resampling = Resampling(arguments.resamples, arguments.seed)
    differences = compare(first.metrics, second.metrics, first.units, resampling)
    unavailable = first.unavailable | second.unavailable
    if arguments.json:
        content: dict[str, Any] = {
            "metrics": {
                name: {
                    "first": gap.first,
                    "second": gap.second,
                    "difference": gap.difference,
                    "interval": list(gap.interval),
                    "p_value": gap.p_value,
                }
                for name, gap in differences.items()
            },
            "unavailable": unavailable,
            "n": scorer.count(first),
            "confidence": describe(resampling, "paired percentile bootstrap"),
            "protocol": {"first": first.protocol, "second": second.protocol},
        }
        print_json({**content, "partial": problems.to_json()} if problems else content)
    else:
        _print(differences, files, unavailable)
    note_problems(problems)
    return 0 if differences else 1


def _print(differences: dict[str, Any], files: list[Path], unavailable: dict[str, str]) -> None:
    headings = ["", "first", "second", "difference", "95% from", "to", "p"]
    rows = [
        [
            name,
            figure(gap.first),
            figure(gap.second),
            f"{gap.difference:+.4f}",
            *(f"{end:+.4f}" for end in gap.interval),
            figure(gap.p_value),
        ]
        for name, gap in differences.items()
    ]
    print_table(headings, rows)
    print_line(f"first: {files[0]}\nsecond: {files[1]}")
    for name, why in unavailable.items():
        print_line(f"{name}: unavailable: {why}")


def _scorer(arguments: argparse.Namespace) -> tuple[ResultsScorer[Any], list[Path]]:
    """The kind of results that the options name, and the two files. Raises UserError."""
    named = [key for key, option in _RESULTS_OPTION.items() if getattr(arguments, key) or getattr(arguments, option)]
    usage = " or ".join(f"--{a.replace('_', '-')} FILE --{b} FIRST SECOND" for a, b in _RESULTS_OPTION.items())
    if len(named) != 1:
        raise UserError(f"compare: needs {usage}")
    key, option = named[0], _RESULTS_OPTION[named[0]]
    references, files = getattr(arguments, key), getattr(arguments, option)
    if references is None or files is None:
        raise UserError(f"compare: --{key.replace('_', '-')} and --{option} go together: {usage}")
    if key == "references":
        return captions.CaptionResultsScorer(arguments), files
    if key == "text_to_image":
        return retrieval.RetrievalResultsScorer(arguments), files
    content = read_json(references)
    records = content.get("annotations") if isinstance(content, dict) else content
    boxes = isinstance(records, list) and any(isinstance(r, dict) and ("bbox" in r) for r in records)
    return (refexp.BoxResultsScorer(arguments) if boxes else vqa.VqaResultsScorer(arguments)), files
