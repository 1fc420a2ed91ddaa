"""Runs pairmill nodes in processes that kill themselves at a given moment: the driver of test_interleavings.py.

Imports what is heavy once, then forks one process per line of standard input, a JSON object: `overrides`, `target`,
`kill_at` (the how-manieth change of a file below the workspace is not made any more; null for none), `order` (seed of
the order of partitions; null leaves it), `ray` (whether to start Ray as a user's run does; otherwise all partitions are
made in the process itself, one after the other) and `log`. Answers each with one line: `code` of the process and the
number of `changes` it made.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import traceback
from typing import Any

#: Audit events of Python that change a file; `open` is one when it is for writing.
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "shutil.rmtree", "shutil.move")


def watch(root: str, kill_at: int | None, changes: list[int]) -> None:
    """Count this process's changes below `root`, and end it like a pulled plug right before number `kill_at`."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            writes = isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        else:
            writes = event in CHANGES
        if not writes or not any(str(argument).startswith(root) for argument in arguments[:2]):
            return
        changes[0] += 1
        if kill_at is not None and changes[0] >= kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def run(task: dict[str, Any]) -> None:
    """What `pairmill run TARGET` does, without MLflow."""
    from pipelines import executor, ray_session
    from pipelines.compose import load
    from pipelines.dag import build, targets
    from pipelines.progress import Progress
    from pipelines.runner import Runner, pending
    from pipelines.state import Workspace
    from pipelines.store import Store

    config = load(task["overrides"])
    dag = build(config)
    workspace = Workspace(dag, Store(config.workspace))
    if not task["ray"]:

        def here(job: Any, partitions: Any, retries: int) -> Any:
            shuffled = list(partitions)
            if task["order"] is not None:
                random.Random(f"{task['order']} {job.node}").shuffle(shuffled)
            return executor.in_driver(job, shuffled, retries)

        ray_session.start = lambda *_: None
        executor.EXECUTORS.update(ray_tasks=here, ray_data=here)
    with Progress() as progress:
        runner = Runner(workspace, config.cluster, Untracked(), progress, False)  # type: ignore[arg-type]
        runner.run(pending(workspace, targets(dag, task["target"])))


class Untracked:
    """Stands where MLflow's tracker would: tracking has tests of its own."""

    invocation = "interleaving"

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


def child(task: dict[str, Any], told: int) -> None:
    """One process's life; never returns."""
    log = os.open(task["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    changes = [0]
    code = 1
    try:
        root = next(word.partition("=")[2] for word in task["overrides"] if word.startswith("workspace="))
        watch(root, task["kill_at"], changes)
        run(task)
        code = 0
    except BaseException:  # noqa: BLE001 - a forked process must not go on as its parent would
        traceback.print_exc()
    finally:
        os.write(told, str(changes[0]).encode())
        sys.stdout.flush()
        os._exit(code)


def main() -> None:
    """Serve until standard input ends."""
    import numpy
    import pandas
    import PIL.Image
    import pyarrow.parquet

    import pipelines.executor
    import pipelines.runner
    import stages.download.fetch
    import stages.signals.stage

    assert all((numpy, pandas, PIL.Image, pyarrow.parquet, pipelines, stages))
    for line in sys.stdin:
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(read)
            child(json.loads(line), write)
        os.close(write)
        _, status = os.waitpid(pid, 0)
        with os.fdopen(read) as said:
            changes = said.read()
        answer = {"code": os.waitstatus_to_exitcode(status), "changes": int(changes or 0)}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
