"""`pairmill run STAGE|GROUP`: bring what is asked for, and whatever it needs, up to date."""

from __future__ import annotations

import argparse
import gc
import sys
import traceback
from typing import Literal

from pipelines import capacity, retry_passes
from pipelines.commands.closing import final_scores, print_closing
from pipelines.compose import load
from pipelines.config import PairmillConfig
from pipelines.dag import build, targets
from pipelines.node import Dag, Node
from pipelines.progress import Progress
from pipelines.runner import Runner, one_line, pending
from pipelines.state import Workspace
from pipelines.store import Store
from stages.base.contract import UserError

TRAINING = ("pretrain", "finetune")


def main(arguments: argparse.Namespace) -> int:
    """Run what is missing, then print the closing table of what was asked for."""
    config = load(arguments.overrides)
    dag = build(config)
    workspace = Workspace(dag, Store(config.workspace))
    wanted = targets(dag, arguments.target)
    if arguments.retry_failed:
        dag, workspace = _retrying(config, dag, workspace, wanted)
    check_capacity(config, workspace, dag, wanted)
    todo = pending(workspace, wanted)
    for node in todo.values():
        node.stage(node.config).check()
    gc.enable()
    if todo:
        code = _run(arguments, config, workspace, wanted, todo)
        if code:
            return code
    else:
        print("nothing to do: everything asked for is up to date")
    print_closing(config, workspace, wanted)
    return 0


def _retrying(config: PairmillConfig, dag: Dag, workspace: Workspace, wanted: list[str]) -> tuple[Dag, Workspace]:
    """The DAG with another retry pass of each download that has transient failures."""
    told = retry_passes.advance(workspace, dag, wanted)
    if told:
        print("\n".join(told))
        dag = build(config)
        return dag, Workspace(dag, Store(config.workspace))
    unfinished = [i for i in wanted if dag[i].stage.name == "download" and workspace.artifact(dag[i]) is None]
    if unfinished:
        print(f"{', '.join(unfinished)}: not finished yet, so this goes on with it; what fails is tried again after")
    else:
        print("nothing to retry: no download that this needs ended with failures that may pass")
    return dag, workspace


def check_capacity(config: PairmillConfig, workspace: Workspace, dag: Dag, wanted: list[str]) -> None:
    """Refuse a training run that cannot fit, before anything is read, fetched or started."""
    stack, seen = list(wanted), set()
    while stack:
        node = dag[stack.pop()]
        if node.id in seen or workspace.artifact(node) is not None:
            continue
        seen.add(node.id)
        stack.extend(node.parents())
    if any(dag[node_id].stage.name in TRAINING for node_id in seen):
        capacity.check(config.model, config.train, config.cluster)


def _run(
    arguments: argparse.Namespace,
    config: PairmillConfig,
    workspace: Workspace,
    wanted: list[str],
    todo: dict[str, Node],
) -> int:
    from pipelines.tracking.tracker import Tracker

    tracker = Tracker(config.tracking, config.workspace)
    tracker.start(
        command=f"run {arguments.target} {' '.join(arguments.overrides)}".strip(),
        tags={"target": arguments.target, "model": config.model.name, "cluster": config.cluster.name},
        params=config.model_dump(mode="json"),
    )
    for node in workspace.dag.values():
        artifact = None if node.id in todo else workspace.artifact(node)
        if artifact is not None:
            tracker.node_reused(node.id, artifact)
    status: Literal["FINISHED", "FAILED", "KILLED"] = "FAILED"
    try:
        with Progress() as progress:
            Runner(workspace, config.cluster, tracker, progress, arguments.verbose).run(todo)
        status = "FINISHED"
        tracker.final_scores(final_scores(workspace, wanted))
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    except UserError:
        raise
    except Exception as error:  # noqa: BLE001 - the last line of defence: one clear line, the traceback on demand
        if arguments.verbose:
            traceback.print_exc()
        hint = "" if arguments.verbose else " (add -v for the traceback)"
        print(f"pairmill: {one_line(error)}{hint}", file=sys.stderr)
        print("pairmill: what was finished is kept; the same command goes on from there", file=sys.stderr)
        return 1
    finally:
        tracker.close(status)
    return 0
