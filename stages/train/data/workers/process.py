"""A worker process: `python -m stages.train.data.workers.process PIPE MEMORY` with two inherited descriptors.

Started as a program of its own, not forked: the rank's process holds threads, locks and a CUDA context that must not be
copied. It never imports torch, which is most of the time a process takes to start.
"""

from __future__ import annotations

import signal
import sys
import traceback
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stages.base.contract import UserError
from stages.train.data.workers.protocol import Done, Failed, Layout, Work, attach_memory

if TYPE_CHECKING:
    from stages.train.data.transform import SampleTransform


def main(pipe: int, memory: int) -> None:
    """Answer the work that comes through the pipe until it is closed, by the rank or by its death."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the rank, which closes the pipe
    connection = Connection(pipe)
    try:
        transform: SampleTransform
        layout: Layout
        transform, layout = connection.recv()
        slots = attach_memory(memory, layout)
        while True:
            connection.send(_answer(transform, slots, connection.recv()))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


def _answer(transform: SampleTransform, slots: NDArray[np.float32], work: Work) -> Done | Failed:
    try:
        rows = slots[work.slot, work.first : work.first + len(work.samples)]
        made = [transform(epoch, number, row) for (epoch, number), row in zip(work.samples, rows, strict=True)]
    except UserError as error:
        return Failed(str(error), user_error=True)
    except Exception:  # noqa: BLE001 - raised again in the rank's process
        return Failed(traceback.format_exc(), user_error=False)
    return Done(work.batch, work.first, tuple(made))


if __name__ == "__main__":
    import cv2

    cv2.setNumThreads(1)  # there are as many workers as there are cores to use
    main(int(sys.argv[1]), int(sys.argv[2]))
