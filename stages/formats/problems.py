"""Problems with the entries of a file, as a value: a reader returns them, its caller refuses or allows them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from stages.base.contract import UserError

Id = int | str
Kind = Literal["missing", "duplicate", "unknown", "empty", "malformed"]
_MOST_NAMED = 10  # entries of each problem in a message; a JSON report has them all
_LONGEST_ID = 60  # characters of an id in a message


@dataclass(frozen=True)
class Problem:
    """The entries of one file that have the same fault."""

    kind: Kind
    file: Path | str
    item: str
    """What an entry is, in the singular: "caption of image"."""
    entries: tuple[Id, ...]
    """Ids, or positions in the file's list counted from 0; never a text."""
    reason: str = ""

    def __str__(self) -> str:
        named = " ".join(map(printable, self.entries[:_MOST_NAMED]))
        more = len(self.entries) - _MOST_NAMED
        reason = f" ({self.reason})" if self.reason else ""
        rest = f" and {more:,} more" if more > 0 else ""
        return f"{len(self.entries):,} {self.kind}{reason}: {self.item} {named}{rest}"


@dataclass(frozen=True)
class Problems:
    """All problems of what was read; false when there are none."""

    found: tuple[Problem, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.found)

    def __add__(self, other: Problems) -> Problems:
        """Those of both; the same problem of the same file, read twice, counts once."""
        return Problems(tuple(dict.fromkeys((*self.found, *other.found))))

    def without(self, kind: Kind) -> Problems:
        """All but one kind."""
        return Problems(tuple(problem for problem in self.found if problem.kind != kind))

    def summary(self) -> str:
        """One line: for every file what is wrong, how often, and which entries."""
        files: dict[Path | str, list[str]] = {}
        for problem in self.found:
            files.setdefault(problem.file, []).append(str(problem))
        return "; ".join(f"{file}: {', '.join(problems)}" for file, problems in files.items())

    def raise_if_any(self, alternative: str = "") -> None:
        """Raise UserError with the summary, if there is any problem.

        `alternative` is put at the end: what the user can do instead of correcting the files.
        """
        if self.found:
            one = sum(len(problem.entries) for problem in self.found) == 1
            raise UserError(f"{self.summary()}; correct {'it' if one else 'them'}{alternative}")

    def to_json(self) -> list[dict[str, Any]]:
        """One object per problem, with all its entries."""
        return [
            {
                "kind": problem.kind,
                "file": str(problem.file),
                "what": problem.item,
                **({"why": problem.reason} if problem.reason else {}),
                "count": len(problem.entries),
                "entries": list(problem.entries),
            }
            for problem in self.found
        ]


def problem(kind: Kind, file: Path | str, item: str, entries: Iterable[Id], reason: str = "") -> Problems:
    """One problem, or none where there are no entries."""
    having = tuple(entries)
    return Problems((Problem(kind, file, item, having, reason),) if having else ())


class ProblemLog:
    """The problems of one file while it is read, entry by entry; a reader returns them as :class:`Problems`."""

    def __init__(self, file: Path | str) -> None:
        self._file = file
        self._entries: dict[tuple[Kind, str, str], list[Id]] = {}

    def add(self, kind: Kind, item: str, entry: Id, reason: str = "") -> None:
        """One entry: what it is in the singular ("caption of image"), and its id or its position in the file's list."""
        self._entries.setdefault((kind, item, reason), []).append(entry)

    def add_all(self, kind: Kind, item: str, entries: Iterable[Id], reason: str = "") -> None:
        """Several entries with the same fault."""
        for entry in entries:
            self.add(kind, item, entry, reason)

    def problems(self) -> Problems:
        """All of them, by fault in the order in which each was first met."""
        return Problems(
            tuple(
                Problem(kind, self._file, item, tuple(entries), reason)
                for (kind, item, reason), entries in self._entries.items()
            )
        )


def printable(entry: Id) -> str:
    """An id within a message of one line: nothing that breaks the line or moves the cursor, and not too long."""
    text = str(entry)
    text = text if len(text) <= _LONGEST_ID else f"{text[:_LONGEST_ID]}..."
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
