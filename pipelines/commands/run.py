"""`pairmill run STAGE|GROUP`: bring a stage or group, and whatever it needs, up to date."""

from __future__ import annotations

import argparse
import gc
import sys
import traceback
from collections.abc import Mapping
from typing import Literal

from pipelines import capacity, retry_passes
from pipelines.commands import add_overrides
from pipelines.compose import load
from pipelines.config import PairmillConfig
from pipelines.dag import build, targets
from pipelines.failures import UserErrors, disk_errors_told, lines_of
from pipelines.node import Dag, Node
from pipelines.progress import Progress
from pipelines.run_summary import final_scores, print_summary
from pipelines.runner import Runner, pending
from pipelines.state import Workspace
from pipelines.store import Store
from stages.base.contract import UserError
from stages.finetune.config import FinetuneConfig
from stages.pretrain.stage import Pretrain
from stages.train.job import check_compile, check_frozen, check_tensor_parallel

TRAINING = ("pretrain", "finetune")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "target",
        metavar="STAGE|GROUP",
        help="world, ingest, download, signals, index, select, shard, tokenizer, tokens, pretrain, finetune, evaluate; "
        "data (up to tokens) or all; or one node as `status` names it",
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="also show the logs of workers")
    parser.add_argument(
        "--retry-failed", action="store_true", help="retry downloads that failed for reasons that may pass"
    )
    add_overrides(parser)


def main(arguments: argparse.Namespace) -> int:
    """Run what is missing of the target, then print its summary."""
    config = load(arguments.overrides)
    dag = build(config)
    workspace = Workspace(dag, Store(config.workspace))
    targeted = targets(dag, arguments.target)
    _refuse_half_forgotten(workspace.store)
    if arguments.retry_failed:
        dag, workspace = _retrying(config, dag, workspace, targeted)
    check_capacity(config, workspace, dag, targeted)
    todo = pending(workspace, targeted)
    _check(todo)
    gc.enable()
    if todo:
        code = _run(arguments, config, workspace, targeted, todo)
        if code:
            return code
    else:
        print("nothing to do: everything is up to date")
    print_summary(config, workspace, targeted)
    return 0


def _refuse_half_forgotten(store: Store) -> None:
    """Raise UserError if samples are only partly removed: what is made of such artifacts would mix their rows."""
    if store.half_forgotten:
        raise UserError(
            f"{store.workspace}: `pairmill forget` is at work there, or was stopped before it was done; run it again, "
            "with the same list or another, which completes it, and then this command"
        )


def _check(todo: Mapping[str, Node]) -> None:
    """Raise UserError with a line for each thing that this machine lacks."""
    lacking: list[UserError] = []
    for node in todo.values():
        try:
            node.stage(node.config).check()
        except UserError as error:
            lacking.append(error)
    if lacking:
        raise UserErrors(lacking) if len(lacking) > 1 else lacking[0]


def _retrying(config: PairmillConfig, dag: Dag, workspace: Workspace, targeted: list[str]) -> tuple[Dag, Workspace]:
    """The DAG with another retry pass of each download that has transient failures."""
    lines = retry_passes.advance(workspace, dag, targeted)
    if lines:
        print("\n".join(lines))
        dag = build(config)
        return dag, Workspace(dag, Store(config.workspace))
    unfinished = [i for i in targeted if dag[i].stage.name == "download" and workspace.artifact(dag[i]) is None]
    if unfinished:
        print(f"{', '.join(unfinished)}: not finished yet, so this run resumes it; retry its failures afterwards")
    else:
        print("nothing to retry: no download of this target ended with failures that may pass")
    return dag, workspace


def check_capacity(config: PairmillConfig, workspace: Workspace, dag: Dag, targeted: list[str]) -> None:
    """Raise UserError for a training run that cannot fit, whose frozen parts have no weights, whose ranks cannot share
    the model, or which names parts or settings that its objective lacks.

    Before anything is read, fetched or started.
    """
    stack, visited = list(targeted), set()
    while stack:
        node = dag[stack.pop()]
        if node.id in visited or workspace.artifact(node) is not None:
            continue
        visited.add(node.id)
        stack.extend(node.parents())
    if any(dag[node_id].stage.name in TRAINING for node_id in visited):
        capacity.check(config.model, config.train, config.cluster)
        check_tensor_parallel(config.model, config.cluster.tensor_parallel)
    for own in (dag[node_id].config for node_id in visited):
        if isinstance(own, FinetuneConfig):
            own.task.phase(config.model.architecture).learning_parts(f"tasks.{own.name}", config.model)
    if any(dag[node_id].stage is Pretrain for node_id in visited):
        check_compile("train", config.train, config.cluster.tensor_parallel)
        check_frozen("train", config.train, config.train.phases, config.model)


def _run(
    arguments: argparse.Namespace,
    config: PairmillConfig,
    workspace: Workspace,
    targeted: list[str],
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
        with disk_errors_told(config.workspace, config.cluster.scratch or ""), Progress() as progress:
            Runner(workspace, config.cluster, tracker, progress, arguments.verbose).run(todo)
        status = "FINISHED"
        tracker.final_scores(final_scores(workspace, targeted))
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    except UserError:
        raise
    except Exception as error:  # noqa: BLE001 - any failure of a stage is one line, with the traceback on request
        if arguments.verbose:
            traceback.print_exc()
        hint = "" if arguments.verbose else " (add -v for the traceback)"
        print("\n".join(f"pairmill: {line}" for line in lines_of(error)) + hint, file=sys.stderr)
        print("pairmill: finished work is kept; the same command resumes from there", file=sys.stderr)
        return 1
    finally:
        tracker.close(status)
    return 0
