"""The table at the end of a run: images fetched, pairs kept, losses, scores, and where to browse them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipelines.config import PairmillConfig
from pipelines.node import with_ancestors
from pipelines.retry_passes import EarlierPass
from pipelines.state import Workspace


def print_summary(config: PairmillConfig, workspace: Workspace, targeted: Sequence[str]) -> None:
    """Print one row per artifact of the nodes `targeted` and of those they depend on."""
    from rich.console import Console
    from rich.table import Table

    rows = [row for node in with_ancestors(workspace.dag, targeted) for row in _rows(workspace, node.id)]
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name.replace("[", "\\["), value.replace("[", "\\["))
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=160)
    console.print(table)
    command = "make ui" if config.workspace == "workspace" else f"pairmill ui workspace={config.workspace}"
    console.print(f"Browse runs, reports and scores: {command}")


def final_scores(workspace: Workspace, targeted: Sequence[str]) -> dict[str, float]:
    """`<benchmark>/<metric>` -> score, of the finished benchmarks among the nodes `targeted`."""
    scores = {}
    for node in (workspace.dag[node_id] for node_id in targeted):
        artifact = workspace.artifact(node) if node.stage.name == "evaluate" else None
        if artifact is not None:
            name = node.instance.rsplit("/", 1)[-1]
            scores.update({f"{name}/{k}": v for k, v in _numbers(artifact.read_json("scores.json"))})
    return scores


def _numbers(scores: dict[str, Any]) -> list[tuple[str, float]]:
    return [
        (name, float(value))
        for name, value in scores["scores"].items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    ]


def _rows(workspace: Workspace, node_id: str) -> list[tuple[str, str]]:
    node = workspace.dag[node_id]
    artifact = workspace.artifact(node)
    if artifact is None or isinstance(node, EarlierPass):
        return []
    counts = artifact.counts
    match node.stage.name:
        case "download":
            images, success = counts.get("images", 0), counts.get("success", 0)
            return [(node_id, f"{success:,} of {images:,} images fetched")]
        case "select":
            kept, pairs = counts.get("kept", 0), counts.get("pairs", 0)
            report = artifact.path("report.html")
            return [(node_id, f"{kept:,} of {pairs:,} pairs kept; report: {report}")]
        case "shard":
            return [(node_id, f"{artifact.read_json('dataset.json')['samples']:,} samples")]
        case "pretrain" | "finetune":
            return [(node_id, _losses(artifact.read_json("train.json")))]
        case "evaluate":
            return [(node_id, _scores(artifact.read_json("scores.json")))]
    return []


def _losses(train: dict[str, Any]) -> str:
    phases = train.get("phases") or [train]
    parts = [
        f"{phase.get('objective', 'loss')}: {phase['first_loss']:.3f} → {phase['last_loss']:.3f}" for phase in phases
    ]
    if replaced := train.get("replaced", {}).get("samples"):
        parts.append(f"{replaced:,} damaged samples replaced (their uids: train.json)")
    return "; ".join(parts)


def _scores(scores: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in _numbers(scores))
