"""One module per `pairmill` command: `add_arguments(parser)` and `main(arguments)`; here what several declare alike."""

from __future__ import annotations

import argparse


def add_overrides(parser: argparse.ArgumentParser) -> None:
    """Declare `overrides`: the keys of the configuration that the command line sets."""
    example = "model=florence2_tiny train.lr=1e-3 source=coco,cc12m"
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help=f"Hydra overrides of conf/config.yaml, e.g. {example}"
    )


def add_json(parser: argparse.ArgumentParser, what: str = "JSON on standard output") -> None:
    """Declare `--json`."""
    parser.add_argument("--json", action="store_true", help=what)
