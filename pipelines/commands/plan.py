"""`pairmill plan`: memory, FLOPs, time and energy of a training before it starts; says no where it cannot fit."""

from __future__ import annotations

import argparse
import json

from pipelines.commands import add_json, add_overrides
from pipelines.compose import load
from pipelines.plan.report import Question, plan, text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_json(parser)
    parser.add_argument(
        "--samples", type=float, metavar="N", help="samples of the data set (default: as published, where known)"
    )
    parser.add_argument(
        "--text-tokens",
        type=int,
        metavar="N",
        help="mean length of a text, for FLOPs and times; memory is planned for train.max_text_tokens, the default",
    )
    add_overrides(parser)


def main(arguments: argparse.Namespace) -> int:
    """Print the plan; the exit code is 1 if the training does not fit."""
    config = load(arguments.overrides)
    question = Question(config.model, config.train, config.cluster, arguments.samples, arguments.text_tokens)
    record = plan(question)
    print(json.dumps(record, indent=1) if arguments.json else text(record, question))
    return 0 if record["fits"] else 1
