"""What a world implements, and how one is found: the entry-point group `pairmill.worlds`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

from stages.base.contract import UserError
from stages.world.config import WorldConfig

GROUP = "pairmill.worlds"


class WorldBuilder(ABC):
    """A kind of world."""

    @abstractmethod
    def build(self, out: Path, config: WorldConfig) -> dict[str, int]:
        """Write all files below `out`, the same bytes every time; returns counts for the manifest."""

    @contextmanager
    def serve(self, root: Path) -> Iterator[dict[str, str]]:
        """Host names of the world's URLs -> ``ip:port`` that plays them while the context lasts; none by default."""
        yield {}


def world_class(kind: str) -> type[WorldBuilder]:
    """The world registered for a kind. Raises UserError that names the known kinds."""
    known = {entry.name: entry for entry in entry_points(group=GROUP)}
    if kind not in known:
        raise UserError(
            f"world kind {kind!r} is not known (known: {', '.join(sorted(known)) or 'none'}): correct it, or install"
            f" the package that registers it under {GROUP!r}"
        )
    found = known[kind].load()
    if not (isinstance(found, type) and issubclass(found, WorldBuilder)):
        raise UserError(f"world kind {kind!r}: {known[kind].value} is not a stages.world.plugin.WorldBuilder")
    return found


def package_folder(package: str, requirement: str) -> Path:
    """Folder of an installed package, which is not imported. Raises UserError naming what to install."""
    found = find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise UserError(f"this world is built from {requirement}, which is not installed: pip install {requirement}")
    return Path(found.submodule_search_locations[0])
