"""Ranks for tests: processes that DeepSpeed connects over gloo, and of which none outlives the test.

As a program it is one of them: `python -m tests.stages.train.trainer.launch_ranks FOLDER` in the environment that
:func:`launch_ranks` sets, which calls what `call.json` in the folder names and leaves the result beside it.
"""

from __future__ import annotations

import importlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[4]
#: Characters of a failed process's output that its error shows.
_TAIL = 6000


def launch_ranks(
    ranks: int,
    function: Callable[..., Any],
    *arguments: Any,
    timeout: float = 500,
    environment: Mapping[str, str] | None = None,
    deepspeed: bool = True,
) -> list[Any]:
    """Call ``function(*arguments)`` on each of several ranks; what each of them returned, by rank.

    ``function`` is one that a module of the tests defines, arguments and results are JSON; `torch.distributed` has the
    rank and the world size. ``timeout`` in seconds; ``deepspeed``: whether the function needs DeepSpeed, whose import
    takes seconds. Raises AssertionError as :func:`run_together` does.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        call = {
            "module": function.__module__,
            "function": function.__qualname__,
            "arguments": arguments,
            "deepspeed": deepspeed,
        }
        (folder / "call.json").write_text(json.dumps(call), encoding="utf-8")
        shared = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "DS_ACCELERATOR": "cpu",
            "OMP_NUM_THREADS": "1",
            "WORLD_SIZE": str(ranks),
            **(environment or {}),
        }
        command = [sys.executable, "-m", "tests.stages.train.trainer.launch_ranks", str(folder)]
        run_together(
            [command] * ranks,
            [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(ranks)],
            timeout,
        )
        return [json.loads((folder / f"result-{rank}.json").read_text("utf-8")) for rank in range(ranks)]


def run_together(
    commands: Sequence[Sequence[str]], environments: Sequence[Mapping[str, str]], timeout: float
) -> list[str]:
    """Run a program for each of the commands until all have ended; their output, errors included.

    As soon as one fails, or after ``timeout`` seconds, all are killed with the processes that they have started, and
    an AssertionError shows the output of the one that failed first, or of all that had not ended.
    """
    processes: list[subprocess.Popen[bytes]] = []
    watchers: list[threading.Thread] = []
    ended: queue.SimpleQueue[tuple[int, int]] = queue.SimpleQueue()

    def watch(rank: int, pid: int) -> None:
        # The process stays a zombie until it is killed below with its group, whose number is nobody else's till then.
        end = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert end is not None
        ended.put((rank, end.si_status if end.si_code == os.CLD_EXITED else -end.si_status))

    with ExitStack() as opened:
        outputs = [opened.enter_context(tempfile.TemporaryFile()) for _ in commands]

        def output(rank: int) -> str:
            outputs[rank].seek(0)
            return outputs[rank].read().decode("utf-8", "replace")

        try:
            for rank, (command, environment) in enumerate(zip(commands, environments, strict=True)):
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=outputs[rank],
                    stderr=subprocess.STDOUT,
                    cwd=ROOT,
                    env=environment,
                    start_new_session=True,
                )
                processes.append(process)
                watchers.append(threading.Thread(target=watch, args=(rank, process.pid)))
                watchers[-1].start()
            running = set(range(len(commands)))
            deadline = time.monotonic() + timeout
            while running:
                try:
                    rank, code = ended.get(timeout=max(0.0, deadline - time.monotonic()))
                except queue.Empty:
                    tails = "\n".join(f"rank {rank}:\n{output(rank)[-_TAIL:]}" for rank in sorted(running))
                    raise AssertionError(f"not ended after {timeout:g} s: ranks {sorted(running)}\n{tails}") from None
                running.remove(rank)
                if code:
                    raise AssertionError(f"rank {rank} failed first, with exit code {code}:\n{output(rank)[-_TAIL:]}")
            return [output(rank) for rank in range(len(commands))]
        finally:
            for process in processes:
                os.killpg(process.pid, signal.SIGKILL)
            for watcher in watchers:
                watcher.join()
            for process in processes:
                process.wait()


def main(folder: Path) -> None:
    """One rank."""
    import torch

    torch.set_num_threads(1)
    call = json.loads((folder / "call.json").read_text("utf-8"))
    rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])

    def connect() -> None:
        # A file, since a port that was free a moment ago may not be.
        torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=ranks)

    if call["deepspeed"]:
        from stages.train.trainer.ranks import _import_deepspeed

        _import_deepspeed()
        import deepspeed

        connect()
        deepspeed.init_distributed("gloo")
    else:
        connect()
    function = getattr(importlib.import_module(call["module"]), call["function"])
    result = function(*call["arguments"])
    (folder / f"result-{rank}.json").write_text(json.dumps(result), encoding="utf-8")
    torch.distributed.barrier()
    # gloo's threads hold the last collective's tensors: one that lets go of them while the interpreter ends aborts the
    # process ("terminate called without an active exception").
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
