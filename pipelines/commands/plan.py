"""`pairmill plan`: memory, FLOPs, time and energy of a training before it starts; says no where it cannot fit."""

from __future__ import annotations

import argparse
import json

from pipelines.commands import add_json, add_overrides
from pipelines.compose import load
from pipelines.plan.report import TrainingSetup, plan, text


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


def _without_frozen_shards(overrides: list[str]) -> list[str]:
    """The overrides, and with one that asks for a lower ZeRO stage the recipe's `frozen_shards` dropped, which only
    stage 3 has: so that the question is answered by its memory."""
    lower = any(word in {f"train.zero.stage={stage}" for stage in (0, 1, 2)} for word in overrides)
    named = any("frozen_shards" in word for word in overrides)
    return [*overrides, "train.zero.frozen_shards=null"] if lower and not named else overrides


def main(arguments: argparse.Namespace) -> int:
    """Print the plan; the exit code is 1 if the training does not fit."""
    config = load(_without_frozen_shards(arguments.overrides))
    question = TrainingSetup(config.model, config.train, config.cluster, arguments.samples, arguments.text_tokens)
    record = plan(question)
    print(json.dumps(record, indent=1) if arguments.json else text(record, question))
    return 0 if record["fits"] else 1
