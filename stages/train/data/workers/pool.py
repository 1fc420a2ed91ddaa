"""Worker processes of one rank: hand out rows of micro-batches, collect them, detect workers that die."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Sequence
from multiprocessing.connection import Pipe, wait

import numpy as np
from numpy.typing import NDArray

from stages.base.contract import UserError
from stages.train.data.transform import SampleTransform, TransformedSample
from stages.train.data.workers.protocol import Done, Failed, Layout, Work, attach_memory, create_memory

#: Most samples per piece of work, and pieces a worker holds: one under way and the next.
_ROWS, _AHEAD = 8, 2
#: glibc would give every decoded image's memory back to the system and take it anew, page by page, for the next one.
_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "1000000000", "MALLOC_TRIM_THRESHOLD_": "1000000000"}


class WorkerPool:
    """Makes micro-batches in shared memory: :meth:`submit` queues one, :meth:`result` waits for it."""

    def __init__(self, transform: SampleTransform, workers: int, layout: Layout) -> None:
        self.layout = layout
        memory = create_memory(layout)
        try:
            self.slots: NDArray[np.float32] = attach_memory(memory, layout)
            self._workers = [_Worker(memory) for _ in range(workers)]
        finally:
            os.close(memory)
        self._rows = max(1, min(_ROWS, layout.rows // (2 * workers)))
        self._waiting: deque[Work] = deque()
        self._parts: dict[int, dict[int, tuple[TransformedSample, ...]]] = {}
        self._missing: dict[int, int] = {}
        self._failure: Exception | None = None
        self._closed = False
        self._changed = threading.Condition()
        for worker in self._workers:
            worker.send((transform, layout))
        self._receiver = threading.Thread(target=self._receive, name="loader", daemon=True)
        self._receiver.start()

    def submit(self, batch: int, slot: int, samples: Sequence[tuple[int, int]]) -> None:
        """Queue a micro-batch, (epoch, number) of each row, to be made in a slot."""
        with self._changed:
            self._missing[batch] = len(samples)
            self._parts[batch] = {}
            for first in range(0, len(samples), self._rows):
                self._waiting.append(Work(batch, slot, first, tuple(samples[first : first + self._rows])))
            self._hand_out()

    def result(self, batch: int) -> list[TransformedSample]:
        """All of a micro-batch but its pixels, row by row, once all of it is done.

        Raises UserError where a worker raised it, and RuntimeError for any other failure and for a worker that died.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._failure is not None or not self._missing[batch])
            if self._failure is not None:
                raise self._failure
            del self._missing[batch]
            parts = self._parts.pop(batch)
        return [sample for first in sorted(parts) for sample in parts[first]]

    def close(self) -> None:
        """End the workers."""
        with self._changed:
            self._closed = True
        for worker in self._workers:
            worker.end()
        self._receiver.join()

    def _hand_out(self) -> None:
        while self._waiting:
            worker = min(self._workers, key=lambda worker: len(worker.held))
            if len(worker.held) >= _AHEAD:
                return
            work = self._waiting.popleft()
            worker.held.append(work)
            try:
                worker.send(work)
            except OSError:  # it died; the receiver sees its end of the pipe close
                return

    def _receive(self) -> None:
        by_connection = {worker.connection: worker for worker in self._workers}
        while True:
            for ready in wait(list(by_connection)):
                worker = by_connection[ready]  # type: ignore[index]
                try:
                    answer = worker.connection.recv()
                except (EOFError, OSError):
                    self._fail(worker.death())
                    return
                if isinstance(answer, Failed):
                    bug = RuntimeError(f"in a loader worker:\n{answer.text}")
                    self._fail(UserError(answer.text) if answer.user_error else bug)
                    return
                self._store(worker, answer)

    def _store(self, worker: _Worker, done: Done) -> None:
        with self._changed:
            worker.held.popleft()
            self._parts[done.batch][done.first] = done.samples
            self._missing[done.batch] -= len(done.samples)
            self._hand_out()
            if not self._missing[done.batch]:
                self._changed.notify_all()

    def _fail(self, error: Exception) -> None:
        with self._changed:
            if not self._closed:
                self._failure = error
            self._changed.notify_all()


class _Worker:
    """One process and this side of its pipe."""

    def __init__(self, memory: int) -> None:
        self.connection, theirs = Pipe()
        self.held: deque[Work] = deque()
        """Work it has not answered yet, oldest first."""
        # What the rank can import the worker can, wherever a cluster put the code.
        paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
        environment = {**os.environ, **_MEMORY, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "stages.train.data.workers.process", str(theirs.fileno()), str(memory)],
            pass_fds=(theirs.fileno(), memory),
            env=environment,
            stdin=subprocess.DEVNULL,
        )
        theirs.close()

    def send(self, message: object) -> None:
        self.connection.send(message)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()

    def death(self) -> RuntimeError:
        """The error of a process that ended: how, and with which samples."""
        code = self.process.wait()
        ended = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        hint = " (out of memory? lower loader_workers or prefetch)" if code == -9 else ""
        held = [number for work in self.held for _, number in work.samples]
        return RuntimeError(f"a loader worker {ended}{hint}; it held the samples number {held}")
