"""Brings nodes of the DAG up to date: what is missing, in order, each partition once; resumable after any kill."""

from __future__ import annotations

import datetime
import json
import os
import platform
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from graphlib import TopologicalSorter
from importlib.metadata import version

from pipelines import ray_session
from pipelines.cluster import ClusterConfig
from pipelines.executor import EXECUTORS
from pipelines.failures import UserErrors, disk_errors_told, joined, one_line
from pipelines.fingerprint import fingerprinted
from pipelines.node import Node
from pipelines.progress import Progress
from pipelines.run_partition import ArtifactJob, close, planned
from pipelines.state import Workspace
from pipelines.tracking.tracker import Tracker
from stages.base.artifact import Artifact
from stages.base.contract import Stage, UserError


def pending(workspace: Workspace, targets: Sequence[str]) -> dict[str, Node]:
    """The nodes that must run so that the targets exist; ancestors of a finished artifact are not considered.

    Raises UserError with a line for each outside file that is missing.
    """
    if lacking := workspace.lacking(targets):
        raise UserErrors(lacking)
    todo: dict[str, Node] = {}
    stack = list(targets)
    while stack:
        node = workspace.dag[stack.pop()]
        if node.id not in todo and workspace.artifact_dir(node).artifact() is None:
            todo[node.id] = node
            stack.extend(node.parents())
    return {node_id: node for node_id, node in workspace.dag.items() if node_id in todo}


class Runner:
    """Runs pending nodes in graph order: independent ones side by side, those that fill the cluster singly."""

    def __init__(
        self,
        workspace: Workspace,
        cluster: ClusterConfig,
        tracker: Tracker,
        progress: Progress,
        verbose: bool,
    ) -> None:
        self.workspace = workspace
        self.cluster = cluster
        self.tracker = tracker
        self.progress = progress
        self.verbose = verbose
        self._exclusive = threading.Lock()

    def run(self, todo: Mapping[str, Node]) -> None:
        """Make all nodes of `todo`.

        After a failure nothing more is started; it is raised once what runs beside it has finished, together with the
        failures of that.
        """
        if any(self._needs_ray(node, todo) for node in todo.values()):
            self._start_ray()
        sorter = TopologicalSorter(
            {node.id: [parent for parent in node.parents() if parent in todo] for node in todo.values()}
        )
        sorter.prepare()
        failures: dict[str, BaseException] = {}
        side_by_side: dict[Future[None], str] = {}
        waiting: list[Node] = []
        with ThreadPoolExecutor(max_workers=8, thread_name_prefix="node") as pool:
            while sorter.is_active() and (not failures or side_by_side):
                for node_id in () if failures else sorter.get_ready():
                    node = todo[node_id]
                    if node.stage.executor == "driver":
                        waiting.append(node)
                    else:
                        side_by_side[pool.submit(self._make, node)] = node_id
                if waiting and not failures:
                    # In the main thread, since Ray Train installs signal handlers.
                    node = waiting.pop(0)
                    failure = self._attempt(node)
                    if failure is None:
                        sorter.done(node.id)
                    else:
                        failures[node.id] = failure
                done, _ = wait(side_by_side, timeout=0 if waiting else 0.5, return_when=FIRST_COMPLETED)
                for future in done:
                    node_id = side_by_side.pop(future)
                    error = future.exception()
                    if error is None:
                        sorter.done(node_id)
                    else:
                        failures[node_id] = error
        if failures:
            raise joined(failures)

    def _needs_ray(self, node: Node, todo: Mapping[str, Node]) -> bool:
        made = not any(parent in todo for parent in node.parents())
        return node.stage(node.config).needs_ray(self._inputs(node) if made else None)

    def _start_ray(self) -> None:
        cpus = self.cluster.cpus or max(
            os.cpu_count() or 1,
            self.cluster.workers * self.cluster.cpus_per_worker if not self.cluster.address else 1,
        )
        self.progress.note("starting Ray" if not self.cluster.address else f"joining Ray at {self.cluster.address}")
        ray_session.start(cpus, self.cluster.address, self.verbose)

    def _attempt(self, node: Node) -> BaseException | None:
        try:
            self._make(node)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001 - handed on by `run`, after the other nodes have come to rest
            return error
        return None

    def _make(self, node: Node) -> None:
        with ExitStack() as held:
            held.enter_context(disk_errors_told(self.workspace.store.workspace, self.cluster.scratch or ""))
            if node.stage.executor != "ray_tasks":
                # Two Ray Data pipelines, or one beside Ray Train, would starve each other of CPUs.
                held.enter_context(self._exclusive)
            self._make_locked(node)

    def _make_locked(self, node: Node) -> None:
        started = time.time()
        artifact_dir = self.workspace.artifact_dir(node)
        inputs = self._inputs(node)
        root = self.cluster.scratch
        scratch = self.workspace.store.scratch(node.stage.name, self.workspace.require(node), root)
        stage = node.stage(node.config)
        earlier = {
            key: str(self.workspace.store.scratch(stage.name, self.workspace.fingerprint_with(node, config), root))
            for key, config in stage.earlier().items()
        }
        job = ArtifactJob(
            node=node.id,
            stage=stage,
            fingerprint=self.workspace.require(node),
            url=artifact_dir.url,
            inputs=inputs,
            scratch=str(scratch),
            cluster=self.cluster.model_dump(),
            cache=self.workspace.store.cache(node.stage.name),
            tombstones=self.workspace.store.tombstones,
            earlier=earlier,
        )
        with artifact_dir.lock():
            self.tracker.node_started(
                node.id,
                node.stage,
                artifact_dir.url,
                node.config.model_dump(mode="json"),
                {role: [a.url for a in artifacts] for role, artifacts in inputs.items()},
                scratch / "metrics.jsonl",
            )
            try:
                artifact = self._run_partitions(node, job, started)
            except BaseException as error:
                self.progress.failed(node.id)
                self.tracker.node_failed(node.id, one_line(error))
                raise
        self.workspace.store.set_latest(node.id, self.workspace.record(node))
        summary = job.stage.summary(artifact)
        self.tracker.node_finished(node.id, artifact, summary)
        self.progress.finished(node.id, time.time() - started, artifact.counts)

    def _run_partitions(self, node: Node, job: ArtifactJob, started: float) -> Artifact:
        artifact_dir = job.artifact_dir
        if type(job.stage).plan is not Stage.plan:
            self.progress.note(f"{node.id}: planning")
        partitions = planned(job)
        plan = [partition.id for partition in partitions]
        if artifact_dir.plan() != plan:
            artifact_dir.write("_plan.json", json.dumps(plan))
        committed = artifact_dir.committed()
        todo = [partition for partition in partitions if partition.id not in committed]
        self.progress.started(node.id, len(plan), len(plan) - len(todo), job.scratch)
        observed = type(job.stage).on_commit is not Stage.on_commit
        reports = (
            [c.report for c in artifact_dir.read_commits(artifact_dir.in_order(committed & set(plan), plan))]
            if observed
            else []
        )
        if observed and not todo:
            # What stopped the run that committed the last partition stops this one too.
            job.stage.on_commit(reports)
        if todo:
            made = EXECUTORS[node.stage.executor](job, todo, self.cluster.max_failures)
            told = 0
            for report in made:
                self.progress.advanced(node.id)
                if observed:
                    reports.append(report)
                    # Each call goes over all reports: with every commit, a million of them would take for ever.
                    if len(reports) >= told + told // 100 + 1 or len(reports) == len(plan):
                        told = len(reports)
                        try:
                            job.stage.on_commit(reports)
                        except UserError:
                            made.close()
                            raise
        identity = {
            "stage": node.stage.name,
            "node": node.id,
            "version": node.stage.version,
            "fingerprint": job.fingerprint,
            "config": fingerprinted(node.config),
            "inputs": {role: [a.fingerprint for a in artifacts] for role, artifacts in job.inputs.items()},
        }
        moment = datetime.datetime.fromtimestamp(started, datetime.UTC).isoformat(timespec="seconds")
        run = {
            "started": moment,
            "seconds": round(time.time() - started, 3),
            "host": platform.node(),
            "python": platform.python_version(),
            "pairmill": version("pairmill"),
            "partitions_run": len(todo),
            "partitions": len(plan),
            "tracking": self.tracker.invocation,
        }
        return close(job, plan, identity, run)

    def _inputs(self, node: Node) -> dict[str, tuple[Artifact, ...]]:
        inputs = {}
        for role, ids in node.inputs.items():
            artifacts = [self.workspace.artifact(self.workspace.dag[i]) for i in ids]
            inputs[role] = tuple(a for a in artifacts if a is not None)
            assert len(inputs[role]) == len(ids), f"{node.id} was scheduled before its input {role}"
        return inputs
