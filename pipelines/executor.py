"""Where partitions run: as Ray tasks, through a pool of Ray Data actors, or in the driver."""

from __future__ import annotations

import json
import logging
from collections import deque
from collections.abc import Callable, Generator, Sequence
from typing import Any

from pipelines.run_partition import ArtifactJob, run_partition
from stages.base.contract import Partition, UserError

#: Takes a job, its pending partitions and the number of retries; yields the report of every committed partition.
Executor = Callable[[ArtifactJob, Sequence[Partition], int], Generator[dict[str, Any]]]

_ready: dict[str, ArtifactJob] = {}


def _prepared(job: ArtifactJob) -> ArtifactJob:
    """The job with its stage set up: once per process, since a Ray worker makes many partitions of one artifact."""
    if job.url not in _ready:
        _ready.clear()
        job.stage.setup()
        _ready[job.url] = job
    return _ready[job.url]


def _task(job: ArtifactJob, partition: Partition) -> dict[str, Any]:
    return run_partition(_prepared(job), partition)


def _worker(job: ArtifactJob) -> Any:
    """A class for Ray Data to make actors of, which keep a set-up stage and make the partitions that stream past.

    The job is part of the class and no constructor argument: those lie in the object store, which an actor that is
    started again cannot count on.
    """

    class Worker:
        def __init__(self) -> None:
            job.stage.setup()

        def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
            partition = Partition(row["id"], json.loads(row["spec"]))
            return {"id": partition.id, "report": json.dumps(run_partition(job, partition))}

    return Worker


def _gpus(job: ArtifactJob) -> float:
    import ray

    return job.stage.gpus if ray.cluster_resources().get("GPU", 0) else 0.0


def in_ray_tasks(job: ArtifactJob, partitions: Sequence[Partition], retries: int) -> Generator[dict[str, Any]]:
    """One Ray task per partition; a task is restarted when its worker dies or its I/O fails.

    After a failure that retries do not cure, running tasks may finish (their commits count), then it is raised.
    Closing the generator cancels them.
    """
    import ray
    from ray.exceptions import RayTaskError

    remote = ray.remote(_task).options(
        num_cpus=job.stage.cpus,
        num_gpus=_gpus(job),
        max_retries=retries,
        retry_exceptions=[OSError],
        name=f"pairmill:{job.node}",
    )
    shared = ray.put(job)
    # Enough to keep every CPU busy; not so many that a failure is only noticed after thousands more.
    window = max(2, 2 * int(ray.cluster_resources().get("CPU", 1) / max(job.stage.cpus, 0.01)))
    queue = deque(partitions)
    running: list[Any] = []
    failure: BaseException | None = None
    try:
        while queue or running:
            while queue and len(running) < window and failure is None:
                running.append(remote.remote(shared, queue.popleft()))
            if not running:
                break
            done, running = ray.wait(running, num_returns=1)
            try:
                report = ray.get(done[0])
            except RayTaskError as error:
                failure = failure or (error.cause if isinstance(error.cause, UserError) else error)
            else:
                yield report
    except GeneratorExit:
        for task in running:
            ray.cancel(task, force=True)
        raise
    if failure is not None:
        raise failure


def in_ray_data(job: ArtifactJob, partitions: Sequence[Partition], retries: int) -> Generator[dict[str, Any]]:
    """Partitions stream through a pool of Ray Data actors; each set its stage up once.

    Ray Data replaces a dead actor and repeats its partition by itself, so `retries` is ignored.
    """
    import ray
    from ray.exceptions import RayTaskError

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    rows = [{"id": partition.id, "spec": json.dumps(dict(partition.spec))} for partition in partitions]
    cpus = ray.cluster_resources().get("CPU", 1)
    gpus = _gpus(job)
    most = max(1, min(len(rows), int(cpus / max(job.stage.cpus, 0.01))))
    if gpus:
        most = max(1, min(most, int(ray.cluster_resources()["GPU"] / gpus)))
    dataset = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
        _worker(job),
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=most),
        num_cpus=job.stage.cpus,
        num_gpus=gpus or None,
    )
    try:
        for row in dataset.iter_rows():
            yield json.loads(row["report"])
    except RayTaskError as error:
        raise error.cause if isinstance(error.cause, UserError) else error from None


def in_driver(job: ArtifactJob, partitions: Sequence[Partition], retries: int) -> Generator[dict[str, Any]]:
    """In this process, one after the other: the stage starts Ray work of its own."""
    job.stage.setup()
    for partition in partitions:
        yield run_partition(job, partition)


EXECUTORS: dict[str, Executor] = {"ray_tasks": in_ray_tasks, "ray_data": in_ray_data, "driver": in_driver}
