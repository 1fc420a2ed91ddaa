"""`pairmill forget LIST`: remove samples from every artifact of the workspace, and name the models that saw them."""

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
    from pipelines.forgetting.forget import ForgetResult


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "list", metavar="LIST", help="a file with one uid, URL, sha256 or domain a line (- for standard input)"
    )
    parser.add_argument("--dry-run", action="store_true", help="only print what would be removed")
    add_overrides(parser)


def main(arguments: argparse.Namespace) -> int:
    """Forget, then print what was rewritten and which models saw the samples. The list itself is never printed."""
    from pipelines.forgetting.forget_list import read_forget_list

    config = load(arguments.overrides)
    entries = read_forget_list(_lines(arguments.list), "standard input" if arguments.list == "-" else arguments.list)
    from pipelines.forgetting.forget import forget

    def track(result: ForgetResult) -> None:
        _track(config, result)

    store = Store(config.workspace)
    result = forget(store, entries, config.cluster.scratch, arguments.dry_run, None if arguments.dry_run else track)
    _print(result, len(entries), arguments.dry_run, config.workspace)
    return 0


def _lines(name: str) -> list[str]:
    if name == "-":
        return sys.stdin.read().splitlines()
    try:
        return Path(name).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{name}: cannot be read ({error}); name a text file, one entry a line") from None


def _track(config: PairmillConfig, result: ForgetResult) -> None:
    """Record the result in MLflow through the spool, which delivers it later if MLflow is down."""
    from pipelines.dag import STAGES

    tracked = {stage.name for stage in STAGES if stage.tracked}
    rewritten = [artifact for artifact, _ in result.removals if artifact.manifest["stage"] in tracked]
    if not (rewritten or result.models):
        return
    from pipelines.tracking.tracker import Tracker
    from stages.base.artifact import Artifact

    tracker = Tracker(config.tracking, config.workspace)
    tracker.start("forget", {"target": "forget", "pairs": str(len(result.plan.pairs))}, {})
    for artifact in rewritten:
        tracker.node_rewritten(artifact.manifest.get("node", artifact.manifest["stage"]), Artifact(artifact.url))
    for model, samples in result.models:
        tracker.model_forgot(model.node, model.artifact, samples, result.plan.date)
    tracker.close()


def _print(result: ForgetResult, entries: int, dry_run: bool, workspace: str) -> None:
    from rich.console import Console
    from rich.table import Table

    from pipelines.forgetting.forget import label
    from pipelines.tracking.config import backend

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=160)
    would = "would be " if dry_run else ""
    plan = result.plan
    counted = f"{entries:,} entr{'y' if entries == 1 else 'ies'}"
    console.print(f"{counted}: {len(plan.pairs):,} pairs, {len(plan.images):,} whole images in this workspace")
    if result.removals:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for heading in ("artifact", f"files {would}rewritten", "removed", "samples"):
            table.add_column(heading, justify="left" if heading == "artifact" else "right")
        for artifact, removal in result.removals:
            row = (len(removal.rewritten), len(removal.deleted), removal.samples)
            table.add_row(label(artifact).replace("[", "\\["), *(f"{n:,}" for n in row))
        console.print(table)
    for n, what in (
        (result.partitions, "partitions of unfinished artifacts to be made again"),
        (result.cache_entries, "cache entries removed"),
        (result.pages, "report pages without their pictures now"),
    ):
        if n:
            console.print(f"{n:,} {what}")
    if result.models:
        keys = backend(workspace).run_ids([model.key for model, _ in result.models if model.key])
        table = Table(box=None, pad_edge=False, header_style="bold")
        for heading in ("models that saw them", "registered as", "forgotten in all", "MLflow run"):
            table.add_column(heading, overflow="fold")
        for model, samples in result.models:
            run = keys.get(model.key or "", model.key or "not tracked")
            table.add_row(label(model.artifact).replace("[", "\\["), model.registered, f"{samples:,}", run)
        console.print(table)
    elif plan.pairs:
        console.print("no model of this workspace saw them")
    if dry_run:
        console.print("nothing was changed (--dry-run)")
    elif not plan.pairs:
        console.print("nothing here contains them; they are on the list of samples that no run may add")
