"""Host memory that a GPU copies from while it computes: page-locked, where there is a GPU."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

_LOG = logging.getLogger(__name__)


def pinned_array(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """A new float32 array in pinned memory; ordinary memory without a GPU."""
    made: NDArray[np.float32] = torch.empty(shape, dtype=torch.float32, pin_memory=torch.cuda.is_available()).numpy()
    return made


def pin(array: NDArray[np.float32]) -> Callable[[], None]:
    """Pin memory that exists, such as what worker processes share; returns what undoes it, to be called once.

    Without a GPU nothing happens. Where the system locks no more memory it stays as it is, and batches take one more
    copy on the host.
    """
    if not torch.cuda.is_available():
        return lambda: None
    runtime = torch.cuda.cudart()
    error = int(runtime.cudaHostRegister(array.ctypes.data, array.nbytes, 0))
    if error:
        _LOG.warning("CUDA cannot pin the loader's %d MB (error %d)", array.nbytes >> 20, error)
        return lambda: None

    def undo() -> None:
        torch.cuda.synchronize()  # no copy may be under way
        runtime.cudaHostUnregister(array.ctypes.data)

    return undo
