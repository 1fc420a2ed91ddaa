"""Scoring one results file: read it, refuse what is wrong, score it, and print or write the result."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, TypeVar

from pipelines.commands.score.base import Results, ResultsScorer
from pipelines.commands.score.output import (
    figure,
    note,
    print_json,
    print_line,
    print_table,
    write_per_sample,
)
from stages.evaluate.metrics.bootstrap import Resampling, intervals
from stages.evaluate.scorers.scored import Scored
from stages.formats.problems import Problems

R = TypeVar("R", bound=Results)


def score_file(scorer: ResultsScorer[R], file: Path, arguments: argparse.Namespace) -> int:
    """Score one results file; returns the exit code, 1 when no metric could be computed. Raises UserError."""
    return report(scorer, read_results(scorer, file, arguments), arguments)


def read_results(scorer: ResultsScorer[R], file: Path, arguments: argparse.Namespace) -> R:
    """Read a results file. Raises UserError for problems that are not allowed."""
    results = scorer.read(file)
    refuse(scorer.problems + results.problems, arguments)
    return results


def refuse(problems: Problems, arguments: argparse.Namespace) -> None:
    """Raise UserError if there are problems, unless `--allow-missing` allows them."""
    if not arguments.allow_missing:
        problems.raise_if_any(", or score what is there with --allow-missing")


def note_problems(problems: Problems) -> None:
    """Name the problems that were allowed, on standard error."""
    if problems:
        note(f"partial: {problems.summary()}")


def report(scorer: ResultsScorer[R], results: R, arguments: argparse.Namespace) -> int:
    """Score the results and print them; returns the exit code."""
    (scored,) = scorer.score([results], results.ids)
    problems = scorer.problems + results.problems
    content: dict[str, Any] = {**scorer.report(scored), "n": scorer.count(scored), "protocol": scored.protocol}
    of_scores: dict[str, tuple[float, float]] = {}
    if arguments.confidence:
        resampling = Resampling(arguments.resamples, arguments.seed)
        of_scores = intervals(scored.metrics, scored.units, resampling)
        content["confidence"] = {
            **describe(resampling, "percentile bootstrap"),
            "intervals": {name: list(interval) for name, interval in of_scores.items()},
        }
        for domain, rows in scored.domains.items():
            units = [scored.units[i] for i in rows.tolist()]
            within = intervals([metric.take(rows) for metric in scored.metrics], units, resampling)
            content["domains"][domain]["intervals"] = {name: list(interval) for name, interval in within.items()}
    if problems:
        content["partial"] = problems.to_json()
    if arguments.per_sample is not None:
        write_per_sample(scored.per_sample, arguments.per_sample)
    if arguments.json:
        print_json(content)
    else:
        _print(scored, content, of_scores)
    note_problems(problems)
    return 0 if scored.metrics else 1


def describe(resampling: Resampling, method: str) -> dict[str, Any]:
    """How intervals were computed, for a report."""
    return {
        "level": resampling.level,
        "method": method,
        "resamples": resampling.resamples,
        "seed": resampling.seed,
        "resampled": "images",
    }


def _print(scored: Scored, content: dict[str, Any], of_scores: dict[str, tuple[float, float]]) -> None:
    domains = list(scored.domains)
    headings = ["", "all", *(["95% from", "to"] if of_scores else []), *domains]
    rows = []
    for name, value in scored.total().items():
        ends = [figure(end) for end in of_scores[name]] if of_scores else []
        by_domain = (figure(content["domains"][domain]["metrics"][name]) for domain in domains)
        rows.append([name, figure(value), *ends, *by_domain])
    print_table(headings, rows)
    count = content["n"] if isinstance(content["n"], dict) else {"samples": content["n"]}
    print(", ".join(f"{number:,} {noun}" for noun, number in count.items()))
    for domain in domains:
        print_line(f"{domain}: {content['domains'][domain]['n']:,} images")
    for name, number in scored.counts.items():
        print(f"{name.replace('_', ' ')}: {number:,}")
    for name, why in scored.unavailable.items():
        print_line(f"{name}: unavailable: {why}")
