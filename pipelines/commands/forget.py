"""`pairmill forget LIST`: take samples out of every artifact of the workspace, and name the models that saw them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.commands import add_overrides
from pipelines.compose import load
from pipelines.config import PairmillConfig
from pipelines.store import Store
from stages.base.contract import UserError

if TYPE_CHECKING:
    from pipelines.forgetting.work import Outcome


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "list", metavar="LIST", help="a file with one uid, URL, sha256 or domain a line (- for standard input)"
    )
    parser.add_argument("--dry-run", action="store_true", help="only print what would be removed")
    add_overrides(parser)


def main(arguments: argparse.Namespace) -> int:
    """Forget, then print what was rewritten and which models saw the samples. The list itself is never printed."""
    from pipelines.forgetting.wanted import read_wanted

    config = load(arguments.overrides)
    wanted = read_wanted(_lines(arguments.list), "standard input" if arguments.list == "-" else arguments.list)
    from pipelines.forgetting.work import forget

    def track(outcome: Outcome) -> None:
        _track(config, outcome)

    store = Store(config.workspace)
    outcome = forget(store, wanted, config.cluster.scratch, arguments.dry_run, None if arguments.dry_run else track)
    _print(outcome, len(wanted), arguments.dry_run, config.workspace)
    return 0


def _lines(name: str) -> list[str]:
    if name == "-":
        return sys.stdin.read().splitlines()
    try:
        return Path(name).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{name}: cannot be read ({error}); name a text file, one entry a line") from None


def _track(config: PairmillConfig, outcome: Outcome) -> None:
    """Record the outcome in MLflow through the spool, which delivers it later if MLflow is down."""
    rewritten = [artifact for artifact, _ in outcome.taken if artifact.manifest["stage"] == "select"]
    if not (rewritten or outcome.models):
        return
    from pipelines.tracking.tracker import Tracker
    from stages.base.artifact import Artifact

    tracker = Tracker(config.tracking, config.workspace)
    tracker.start("forget", {"target": "forget", "pairs": str(len(outcome.plan.pairs))}, {})
    for artifact in rewritten:
        tracker.node_rewritten(artifact.manifest.get("node", "select"), Artifact(artifact.url))
    for model, samples in outcome.models:
        tracker.model_forgot(model.node, model.artifact, samples, outcome.plan.date)
    tracker.close()


def _print(outcome: Outcome, entries: int, dry_run: bool, workspace: str) -> None:
    from rich.console import Console
    from rich.table import Table

    from pipelines.forgetting.work import label
    from pipelines.tracking.lookup import run_ids

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=160)
    would = "would be " if dry_run else ""
    plan = outcome.plan
    counted = f"{entries:,} entr{'y' if entries == 1 else 'ies'}"
    console.print(f"{counted}: {len(plan.pairs):,} pairs, {len(plan.images):,} whole images in this workspace")
    if outcome.taken:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for heading in ("artifact", f"files {would}rewritten", "removed", "samples"):
            table.add_column(heading, justify="left" if heading == "artifact" else "right")
        for artifact, taken in outcome.taken:
            row = (len(taken.files), len(taken.removed), taken.samples)
            table.add_row(label(artifact).replace("[", "\\["), *(f"{n:,}" for n in row))
        console.print(table)
    for n, what in (
        (outcome.partitions, "partitions of unfinished artifacts to be made again"),
        (outcome.cached, "cache entries removed"),
        (outcome.pages, "report pages without their pictures now"),
    ):
        if n:
            console.print(f"{n:,} {what}")
    if outcome.models:
        keys = run_ids(workspace, [model.key for model, _ in outcome.models if model.key])
        table = Table(box=None, pad_edge=False, header_style="bold")
        for heading in ("models that saw them", "registered as", "forgotten in all", "MLflow run"):
            table.add_column(heading, overflow="fold")
        for model, samples in outcome.models:
            run = keys.get(model.key or "", model.key or "not tracked")
            table.add_row(label(model.artifact).replace("[", "\\["), model.registered, f"{samples:,}", run)
        console.print(table)
    elif plan.pairs:
        console.print("no model of this workspace saw them")
    if dry_run:
        console.print("nothing was changed (--dry-run)")
    elif not plan.pairs:
        console.print("nothing here contains them; they are on the list of samples that no run may add")
