"""`score compare`: two results on the same references, by paired bootstrap."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from pipelines.commands.score.output import figure, note, print_json, print_table, say
from pipelines.commands.score.run import ALLOW, open_task, told
from stages.base.contract import UserError
from stages.evaluate.formats.json_file import read_json
from stages.evaluate.formats.problems import Problems
from stages.evaluate.metrics import bootstrap
from stages.evaluate.metrics.bootstrap import Resampling

_WAYS = {"references": "candidates", "annotations": "results", "text_to_image": "scores"}


def compare(arguments: argparse.Namespace) -> int:
    """Score both on the samples that both have, and print second minus first."""
    kind, files = _asked(arguments)
    problems = Problems()
    task = open_task(arguments, kind, problems)
    # The same file twice is read once: its problems count once.
    read = {file: task.read(file) for file in dict.fromkeys(files)}
    answers = [read[file] for file in files]
    problems.settle(arguments.allow_missing, ALLOW)
    common = [key for key in answers[0] if key in answers[1]]
    if not common:
        raise UserError(f"{files[0]} and {files[1]} have no sample in common; are they of the same references?")
    first, second = task.score(
        [(file, {key: found[key] for key in common}) for file, found in zip(files, answers, strict=True)]
    )
    how = Resampling(arguments.resamples, arguments.seed)
    found = bootstrap.compare(first.scores, second.scores, first.units, how)
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
                for name, gap in found.items()
            },
            "unavailable": first.unavailable | second.unavailable,
            "n": first.n,
            "confidence": {**told(how, first), "method": "paired percentile bootstrap"},
            "protocol": {"first": first.protocol, "second": second.protocol},
        }
        print_json({**content, "partial": problems.to_json()} if problems else content)
    else:
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
            for name, gap in found.items()
        ]
        print_table(headings, rows)
        say(f"first: {files[0]}\nsecond: {files[1]}")
        for name, why in (first.unavailable | second.unavailable).items():
            say(f"{name}: unavailable: {why}")
    if problems:
        note(f"partial: {problems.told()}")
    return 0 if found else 1


def _asked(arguments: argparse.Namespace) -> tuple[str, list[Path]]:
    """Which task the options mean, and the two files. Raises UserError."""
    given = [key for key, results in _WAYS.items() if getattr(arguments, key) or getattr(arguments, results)]
    ways = " or ".join(f"--{a.replace('_', '-')} FILE --{b} FIRST SECOND" for a, b in _WAYS.items())
    if len(given) != 1:
        raise UserError(f"compare: needs {ways}")
    references, files = getattr(arguments, given[0]), getattr(arguments, _WAYS[given[0]])
    if references is None or files is None:
        raise UserError(f"compare: --{given[0].replace('_', '-')} and --{_WAYS[given[0]]} go together: {ways}")
    if given[0] == "references":
        return "captions", files
    if given[0] == "text_to_image":
        return "retrieval", files
    content = read_json(references)
    records = content.get("annotations") if isinstance(content, dict) else content
    boxes = isinstance(records, list) and any(isinstance(r, dict) and ("bbox" in r) for r in records)
    return "refexp" if boxes else "vqa", files
