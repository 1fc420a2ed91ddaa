"""What a rank and its worker processes share: memory for the pixels of micro-batches, and messages over a pipe."""

from __future__ import annotations

import mmap
import os
import tempfile
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stages.train.data.transform import TransformedSample


@dataclass(frozen=True)
class Layout:
    """Slots of float32 [rows, 3, size, size], one after the other; each has room for a micro-batch."""

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


def create_memory(layout: Layout) -> int:
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


def attach_memory(descriptor: int, layout: Layout) -> NDArray[np.float32]:
    """The memory as an array, float32 [slots, rows, 3, size, size]; the descriptor may be closed afterwards."""
    return np.frombuffer(mmap.mmap(descriptor, layout.nbytes), dtype=np.float32).reshape(layout.shape)


@dataclass(frozen=True)
class Work:
    """Rows of a micro-batch for one worker to make."""

    batch: int
    """Number of the micro-batch among those submitted."""
    slot: int
    """Where its pixels go."""
    first: int
    """Row of the first sample in the slot; the others follow."""
    samples: tuple[tuple[int, int], ...]
    """(epoch, number) of each."""


@dataclass(frozen=True)
class Done:
    """The pixels of the work are in their slot; this is the rest."""

    batch: int
    first: int
    samples: tuple[TransformedSample, ...]


@dataclass(frozen=True)
class Failed:
    """The work raised an error that is not a damaged sample."""

    text: str
    """One line for a user's mistake, else a traceback."""
    user_error: bool
    """Whether it was a UserError."""
