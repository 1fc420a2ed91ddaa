"""`score captions|nocaps|vqa|retrieval|refexp`: one results file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from pipelines.commands.score.output import (
    check_per_sample,
    figure,
    note,
    print_json,
    print_table,
    say,
    write_per_sample,
)
from pipelines.commands.score.task import Scored, Task
from stages.base.contract import UserError
from stages.evaluate.formats.problems import Problems
from stages.evaluate.metrics.bootstrap import Resampling, intervals

#: What else there is to do about entries that are missing or broken.
ALLOW = ", or score what is there with --allow-missing"


def score(arguments: argparse.Namespace) -> int:
    """Read, refuse what is wrong, score, print."""
    check_per_sample(arguments.per_sample)
    problems = Problems()
    task = open_task(arguments, arguments.what, problems)
    frequencies = getattr(arguments, "write_document_frequencies", None)
    alone = frequencies is not None and arguments.candidates is None
    file = None if alone else results_file(arguments)
    answers = {} if file is None else task.read(file)
    problems.settle(arguments.allow_missing, ALLOW)
    if frequencies is not None:
        from pipelines.commands.score.captions import Captions

        assert isinstance(task, Captions)
        task.write_frequencies(frequencies)
        note(f"document frequencies: {frequencies}")
    if file is None:
        if arguments.json:
            written: dict[str, Any] = {"document_frequencies": str(frequencies)}
            print_json({**written, "partial": problems.to_json()} if problems else written)
        if problems:
            note(f"partial: {problems.told()}")
        return 0
    (scored,) = task.score([(file, answers)])
    content: dict[str, Any] = {**task.report(scored), "n": scored.n, "protocol": scored.protocol}
    found: dict[str, tuple[float, float]] = {}
    if arguments.confidence:
        how = Resampling(arguments.resamples, arguments.seed)
        found = intervals(scored.scores, scored.units, how)
        content["confidence"] = {**told(how, scored), "intervals": {k: list(v) for k, v in found.items()}}
        for domain, rows in scored.domains.items():
            units = [scored.units[i] for i in rows.tolist()]
            within = intervals([one.take(rows) for one in scored.scores], units, how)
            content["domains"][domain]["intervals"] = {k: list(v) for k, v in within.items()}
    if problems:
        content["partial"] = problems.to_json()
    if arguments.per_sample is not None:
        write_per_sample(scored.samples, arguments.per_sample)
    if arguments.json:
        print_json(content)
    else:
        _print(scored, content, found)
    if problems:
        note(f"partial: {problems.told()}")
    return 0 if scored.scores else 1


def open_task(arguments: argparse.Namespace, kind: str, problems: Problems) -> Task:
    """The references, read. Raises UserError."""
    if kind in ("captions", "nocaps"):
        from pipelines.commands.score.captions import Captions

        return Captions(arguments, problems)
    if kind == "vqa":
        from pipelines.commands.score.vqa import Vqa

        return Vqa(arguments, problems)
    if kind == "retrieval":
        from pipelines.commands.score.retrieval import Retrieval

        return Retrieval(arguments, problems)
    from pipelines.commands.score.refexp import ReferringExpressions

    return ReferringExpressions(arguments, problems)


def results_file(arguments: argparse.Namespace) -> Path:
    """The file that is scored. Raises UserError where none is named."""
    keys = {"captions": "candidates", "nocaps": "candidates", "retrieval": "scores"}
    file: Path | None = getattr(arguments, keys.get(arguments.what, "results"))
    if file is None:
        raise UserError("--candidates: missing; name the results JSON, [{image_id, caption}]")
    return file


def told(how: Resampling, scored: Scored) -> dict[str, Any]:
    """How intervals were made."""
    return {
        "level": how.level,
        "method": "percentile bootstrap",
        "resamples": how.resamples,
        "seed": how.seed,
        "resampled": scored.unit,
    }


def _print(scored: Scored, content: dict[str, Any], found: dict[str, tuple[float, float]]) -> None:
    domains = list(scored.domains)
    headings = ["", "all", *(["95% from", "to"] if found else []), *domains]
    rows = []
    for name, value in scored.total().items():
        ends = [figure(end) for end in found[name]] if found else []
        rows.append([name, figure(value), *ends, *(figure(content["domains"][d]["metrics"][name]) for d in domains)])
    print_table(headings, rows)
    counted = scored.n if isinstance(scored.n, dict) else {"samples": scored.n}
    print(", ".join(f"{number:,} {what}" for what, number in counted.items()))
    for domain in domains:
        say(f"{domain}: {content['domains'][domain]['n']:,} images")
    for name, value in content.items():
        if name in ("hits", "parse_failures"):
            print(f"{name.replace('_', ' ')}: {value:,}")
    for name, why in scored.unavailable.items():
        say(f"{name}: unavailable: {why}")
