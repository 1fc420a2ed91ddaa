"""`pairmill score`: files in the field's public formats, scored with no model, no Ray and no torch."""

from __future__ import annotations

import argparse

from pipelines.commands.score.arguments import add_arguments

__all__ = ["add_arguments", "main"]


def main(arguments: argparse.Namespace) -> int:
    """Score one results file, or compare two; 1 when no metric could be computed."""
    if arguments.what == "compare":
        from pipelines.commands.score.compare import compare

        return compare(arguments)
    from pipelines.commands.score.run import score

    return score(arguments)
