"""What is wrong with the entries of the files that are scored: named, counted, and refused unless that was allowed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from stages.base.contract import UserError

Id = int | str
Kind = Literal["missing", "duplicate", "unknown", "empty", "malformed"]
_NAMED = 10  # of each sort; a JSON report has them all
_LONGEST = 60  # characters of an id in a message


@dataclass
class _Group:
    kind: Kind
    file: Path
    what: str
    ids: list[Id] = field(default_factory=list)
    why: str = ""


class Problems:
    """Collects problems while files are read; holds ids and places, never a text."""

    def __init__(self) -> None:
        self._groups: dict[tuple[str, Path, str, str], _Group] = {}

    def add(self, kind: Kind, file: Path, what: str, entry: Id, why: str = "") -> None:
        """One entry: `what` it is in the singular ("caption of image"), and its id, or its place in the file's list."""
        group = self._groups.setdefault((kind, file, what, why), _Group(kind, file, what, why=why))
        group.ids.append(entry)

    def add_all(self, kind: Kind, file: Path, what: str, entries: Sequence[Id], why: str = "") -> None:
        """Several of one sort."""
        for entry in entries:
            self.add(kind, file, what, entry, why)

    def without(self, kind: Kind) -> Problems:
        """All but one kind."""
        rest = Problems()
        rest._groups = {key: group for key, group in self._groups.items() if group.kind != kind}
        return rest

    def __bool__(self) -> bool:
        return bool(self._groups)

    def told(self) -> str:
        """One line: for every file what is wrong, how often, and which entries."""
        files: dict[Path, list[str]] = {}
        for group in self._groups.values():
            files.setdefault(group.file, []).append(_told(group))
        return "; ".join(f"{file}: {', '.join(said)}" for file, said in files.items())

    def settle(self, allowed: bool = False, otherwise: str = "") -> None:
        """Raise UserError with everything that was found, unless it is allowed or there is nothing.

        `otherwise` says what can be done but mending the files.
        """
        if self._groups and not allowed:
            raise UserError(f"{self.told()}; mend {'it' if self._one() else 'them'}{otherwise}")

    def _one(self) -> bool:
        return sum(len(group.ids) for group in self._groups.values()) == 1

    def to_json(self) -> list[dict[str, Any]]:
        """One object per sort of problem, with all its entries."""
        return [
            {
                "kind": group.kind,
                "file": str(group.file),
                "what": group.what,
                **({"why": group.why} if group.why else {}),
                "count": len(group.ids),
                "entries": group.ids,
            }
            for group in self._groups.values()
        ]


def shown(entry: Id) -> str:
    """An id within a message of one line: nothing that breaks the line or moves the cursor, and not too long."""
    text = str(entry)
    text = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _told(group: _Group) -> str:
    named = " ".join(map(shown, group.ids[:_NAMED]))
    rest = len(group.ids) - _NAMED
    why = f" ({group.why})" if group.why else ""
    return f"{len(group.ids):,} {group.kind}{why}: {group.what} {named}{f' and {rest:,} more' if rest > 0 else ''}"
