"""What a rank and its worker processes say to each other, pickled over a pipe."""

from __future__ import annotations

from dataclasses import dataclass

from stages.train.data.transform import Prepared


@dataclass(frozen=True)
class Work:
    """Rows of a micro-batch that one worker is to prepare."""

    batch: int
    """Number of the micro-batch among those asked for."""
    slot: int
    """Where its pixels go."""
    first: int
    """Row of the first sample in the slot; the others follow."""
    samples: tuple[tuple[int, int], ...]
    """(epoch, number) of each."""


@dataclass(frozen=True)
class Done:
    """The work is in its slot."""

    batch: int
    first: int
    prepared: tuple[Prepared, ...]


@dataclass(frozen=True)
class Failed:
    """The work raised an error that is not the sample's fault."""

    text: str
    """One line for a user's mistake, else a traceback."""
    users: bool
    """Whether it was a UserError."""
