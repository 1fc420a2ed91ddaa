"""`pairmill status`: the state of every stage, and the key or input that makes it stale."""

from __future__ import annotations

import argparse
import json

from pipelines.commands import add_json, add_overrides
from pipelines.compose import load
from pipelines.dag import build
from pipelines.state import NodeState, Workspace
from pipelines.store import Store

_COLOURS = {
    "up to date": "green",
    "partly done": "yellow",
    "stale": "yellow",
    "missing": "default",
    "blocked": "red",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_json(parser)
    add_overrides(parser)


def main(arguments: argparse.Namespace) -> int:
    """Print a table, or JSON with `--json`; changes nothing."""
    config = load(arguments.overrides)
    workspace = Workspace(build(config), Store(config.workspace))
    states = workspace.states()
    if arguments.json:
        print(json.dumps([_record(workspace, state) for state in states], indent=1, ensure_ascii=False))
        return 0
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("stage", "standing", "because"):
        table.add_column(heading, overflow="fold", no_wrap=heading != "because")
    for state in states:
        standing = state.standing
        partly = standing == "partly done"
        standing_text = f"partly done {state.done} of {state.total}" if partly else str(standing)
        colour = _COLOURS[standing]
        table.add_row(state.node.id.replace("[", "\\["), f"[{colour}]{standing_text}[/]", state.why.replace("[", "\\["))
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=200)
    console.print(table)
    return 0


def _record(workspace: Workspace, state: NodeState) -> dict[str, object]:
    artifact_dir = workspace.artifact_dir(state.node).url if state.fingerprint else None
    return {
        "stage": state.node.stage.name,
        "node": state.node.id,
        "standing": state.standing,
        "partitions_done": state.done,
        "partitions": state.total,
        "because": state.why,
        "fingerprint": state.fingerprint,
        "artifact": artifact_dir,
    }
