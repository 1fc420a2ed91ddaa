"""`pairmill score`: files in the field's public formats, scored with no model, no Ray and no torch."""

from __future__ import annotations

import argparse

from pipelines.commands.score import captions, compare, refexp, retrieval, vqa
from pipelines.commands.score.output import check_per_sample

_SUBCOMMANDS = {
    "captions": (captions.HELP, captions.add_arguments, captions.run),
    "nocaps": (captions.NOCAPS_HELP, captions.add_arguments, captions.run_nocaps),
    "vqa": (vqa.HELP, vqa.add_arguments, vqa.run),
    "retrieval": (retrieval.HELP, retrieval.add_arguments, retrieval.run),
    "refexp": (refexp.HELP, refexp.add_arguments, refexp.run),
    "compare": (compare.HELP, compare.add_arguments, compare.run),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands and their options."""
    subcommands = parser.add_subparsers(dest="subcommand", metavar="WHAT", required=True)
    for name, (text, add, run) in _SUBCOMMANDS.items():
        subcommand = subcommands.add_parser(name, help=text, description=text)
        add(subcommand)
        subcommand.set_defaults(run_subcommand=run)


def main(arguments: argparse.Namespace) -> int:
    """Score one results file, or compare two; returns 1 when no metric could be computed."""
    check_per_sample(getattr(arguments, "per_sample", None))
    return int(arguments.run_subcommand(arguments))
