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
from stages.train.data.workers.memory import Layout, attach
from stages.train.data.workers.messages import Done, Failed, Work

if TYPE_CHECKING:
    from stages.train.data.transform import Preparer


def main(pipe: int, memory: int) -> None:
    """Prepare what comes down the pipe until it is closed, which is also how the rank's death shows."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the rank, which closes the pipe
    connection = Connection(pipe)
    try:
        preparer: Preparer
        layout: Layout
        preparer, layout = connection.recv()
        slots = attach(memory, layout)
        while True:
            connection.send(_answer(preparer, slots, connection.recv()))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


def _answer(preparer: Preparer, slots: NDArray[np.float32], work: Work) -> Done | Failed:
    try:
        rows = slots[work.slot, work.first : work.first + len(work.samples)]
        made = [preparer(epoch, number, row) for (epoch, number), row in zip(work.samples, rows, strict=True)]
    except UserError as error:
        return Failed(str(error), users=True)
    except Exception:  # noqa: BLE001 - raised again in the rank's process
        return Failed(traceback.format_exc(), users=False)
    return Done(work.batch, work.first, tuple(made))


if __name__ == "__main__":
    import cv2

    cv2.setNumThreads(1)  # there are as many workers as there are cores to use
    main(int(sys.argv[1]), int(sys.argv[2]))
