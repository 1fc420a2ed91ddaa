"""`pairmill why UID|URL`: the provenance of one sample, from the row that lists it to the models that saw it."""

from __future__ import annotations

import argparse
import json
from typing import Any

from pipelines.commands import add_json, add_overrides
from pipelines.compose import load
from pipelines.dag import build
from pipelines.state import Workspace
from pipelines.store import Store
from stages.base.contract import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("sample", metavar="UID|URL", help="uid of a pair or of an image, or a listed URL")
    add_json(parser)
    add_overrides(parser)


def main(arguments: argparse.Namespace) -> int:
    """Print the provenance, or JSON with `--json`. Raises UserError for a sample that no source lists."""
    config = load(arguments.overrides)
    workspace = Workspace(build(config), Store(config.workspace))
    from pipelines.provenance.provenance import ProvenanceReader

    private = frozenset(name for name, source in config.sources.items() if source.private)
    provenance = ProvenanceReader(workspace, private)
    matches = provenance.find(arguments.sample)
    forgotten = provenance.forgotten(arguments.sample)
    if not matches and not forgotten:
        if all(source.pairs is None for source in provenance.sources):
            raise UserError(f"why: {config.workspace} is empty; run `pairmill run data` first")
        raise UserError(
            f"why {arguments.sample}: no source of this configuration lists it; give a pair's or an image's uid, the "
            "URL exactly as listed, or an image's sha256"
        )
    record = {"sample": arguments.sample, "forgotten": forgotten, "stale": provenance.stale, "found": matches}
    if arguments.json:
        print(json.dumps(record, indent=1, ensure_ascii=False, default=str))
    else:
        _print(record)
    return 0


def _print(record: dict[str, Any]) -> None:
    from rich.console import Console

    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console = Console(highlight=False, markup=False, width=160)

    def line(name: str, value: str, indent: int = 0) -> None:
        console.print(f"{' ' * indent}{name:<{16 - indent}}{value}", soft_wrap=True)

    for node in record["stale"]:
        line("note", f"{node} belongs to an earlier configuration; it is not made for this one yet")
    if record["forgotten"]:
        line("forgotten", "on the workspace's list: no run brings it back")
    for image in record["found"]:
        console.print(f"image {image['image_uid']}", style="bold")
        private = " (private: uids and numbers only)" if image["private"] else ""
        line("source", f"{image['source']}{private}, {_pairs(image['pairs_of_this_image'])}", 2)
        for attempt in image["attempts"]:
            line(f"attempt {attempt['retry_pass'] + 1}", _attempt(attempt), 2)
        if not image["attempts"]:
            line("attempt", "none: its source is not downloaded yet", 2)
        if image["signals"]:
            line("signals", _values(image["signals"]), 2)
        for pair in image["pairs"]:
            console.print(f"  pair {pair['uid']}", style="bold")
            for name, value in pair["listed"].items():
                if name == "caption" and value == "":
                    line(name, "none: its source is image-only", 4)
                elif value is not None and value != "{}":
                    line(name, str(value), 4)
            if pair["signals"]:
                line("signals", _values(pair["signals"]), 4)
            verdict = pair["verdict"]
            line("verdict", _verdict(verdict) if verdict else "none: not selected yet", 4)
            for location in pair["shards"]:
                line("shard", _location(location), 4)
            for model in pair["models"]:
                run = f", MLflow run {model['run'] or model['key']}" if model["key"] else ""
                line("model", f"{model['node']} {model['artifact'][:12]} ({model['registered']}{run})", 4)
            if pair["shards"] and not pair["models"]:
                line("model", "none is trained on it", 4)


def _pairs(count: int) -> str:
    return f"{count:,} pair{'' if count == 1 else 's'} of this image"


def _attempt(attempt: dict[str, Any]) -> str:
    size = f", {attempt['width']}x{attempt['height']}" if attempt.get("width") else ""
    parts = [f"{attempt['status']}{size}"]
    parts += [f"{attempt['bytes']:,} bytes"] if attempt.get("bytes") is not None else []
    parts += [str(attempt[name]) for name in ("format", "error") if attempt.get(name)]
    parts += [f"sha256 {attempt['sha256']}"] if attempt.get("sha256") else []
    return ", ".join(parts)


def _verdict(verdict: dict[str, Any]) -> str:
    repeats = verdict.get("repeats", 1)
    if verdict["keep"]:
        return "kept" + (f", {repeats} times an epoch" if repeats > 1 else "")
    return f"dropped, {verdict['reason']}: {verdict['words']}"


def _location(location: dict[str, Any]) -> str:
    tokens = "".join(f", {entry['tokens']} tokens" for entry in location["tokens"])
    at = f"{location['shard']} at byte {location['image_offset']:,} ({location['image_length']:,} bytes)"
    return f"{at}, sample {location['sample']:,}{tokens}, data set {location['artifact'][:12]}"


def _values(values: dict[str, Any]) -> str:
    shown = (f"{v:.4g}" if isinstance(v, float) else str(v) for v in values.values())
    return ", ".join(f"{name} {value}" for name, value in zip(values, shown, strict=True))
