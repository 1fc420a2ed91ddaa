"""`pairmill show`: the resolved configuration; with `--json` also the model's parameters and needs."""

from __future__ import annotations

import argparse
import json

from models.registry import count_parameters
from pipelines import capacity
from pipelines.commands import add_json, add_overrides
from pipelines.compose import load


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_json(parser, "JSON, with the model's parameter counts")
    add_overrides(parser)


def main(arguments: argparse.Namespace) -> int:
    """Print YAML, or JSON with the model's `parameters` (total and by part)."""
    config = load(arguments.overrides)
    values = config.model_dump(mode="json")
    if not arguments.json:
        import yaml

        print(yaml.safe_dump(values, sort_keys=False, allow_unicode=True), end="")
        return 0
    counts = count_parameters(config.model)
    values["parameters"] = {"total": sum(counts.values()), "parts": counts}
    values["needs"] = capacity.needs(config.model, config.train, config.cluster)
    print(json.dumps(values, indent=1, ensure_ascii=False))
    return 0
