"""Memory that a rank and its worker processes share: slots, each with room for the pixels of a micro-batch."""

from __future__ import annotations

import mmap
import os
import tempfile
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Layout:
    """Slots of float32 [rows, 3, size, size], one after the other."""

    slots: int
    rows: int
    size: int

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        """Of the whole memory as one array."""
        return (self.slots, self.rows, 3, self.size, self.size)

    @property
    def nbytes(self) -> int:
        """Of all slots."""
        return 4 * int(np.prod(self.shape))


def create(layout: Layout) -> int:
    """File descriptor of new memory, for this process and, inherited, for workers.

    An anonymous file, not one below /dev/shm: containers often grant that folder 64 MB and kill whoever exceeds it.
    """
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("pairmill-loader")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, layout.nbytes)
    return descriptor


def attach(descriptor: int, layout: Layout) -> NDArray[np.float32]:
    """The memory as an array, float32 [slots, rows, 3, size, size]; the descriptor may be closed afterwards."""
    return np.frombuffer(mmap.mmap(descriptor, layout.nbytes), dtype=np.float32).reshape(layout.shape)
