"""What a world implements, how one is found (entry-point group `pairmill.worlds`), and serving its hosts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

from stages.base.artifact import Artifact
from stages.base.contract import Inputs, UserError
from stages.base.external_files import WORLD_ROLES
from stages.world.config import WorldConfig

GROUP = "pairmill.worlds"


class WorldBuilder(ABC):
    """A kind of world."""

    @abstractmethod
    def build(self, out: Path, config: WorldConfig) -> dict[str, int]:
        """Write all files below `out`, the same bytes every time; returns counts for the manifest."""

    @contextmanager
    def serve(self, root: Path) -> Iterator[dict[str, str]]:
        """Host names of the world's URLs -> ``ip:port`` that serves them while the context lasts; none by default."""
        yield {}


def world_class(kind: str) -> type[WorldBuilder]:
    """The world registered for a kind. Raises UserError that names the known kinds."""
    known = {entry.name: entry for entry in entry_points(group=GROUP)}
    if kind not in known:
        raise UserError(
            f"world kind {kind!r} is not known (known: {', '.join(sorted(known)) or 'none'}): correct it, or install"
            f" the package that registers it under {GROUP!r}"
        )
    loaded = known[kind].load()
    if not (isinstance(loaded, type) and issubclass(loaded, WorldBuilder)):
        raise UserError(f"world kind {kind!r}: {known[kind].value} is not a stages.world.plugin.WorldBuilder")
    return loaded


@contextmanager
def served_hosts(inputs: Inputs) -> Iterator[dict[str, str]]:
    """Host name -> ``127.0.0.1:port`` that plays it, for the worlds among a stage's inputs, while the context lasts.

    Empty where no input is a world: everything is fetched from the real web.
    """
    served: dict[str, str] = {}
    with ExitStack() as running:
        for role in WORLD_ROLES:
            for artifact in inputs.get(role, ()):
                served |= running.enter_context(serving(artifact, artifact.manifest["config"]["kind"]))
        yield served


@contextmanager
def serving(artifact: Artifact, kind: str) -> Iterator[dict[str, str]]:
    """Host names as in one world's lists -> ``127.0.0.1:port`` of a server that lives as long as the context.

    The lists name fixed hosts in the reserved TLD `.test` (RFC 6761), so that uids do not depend on a port.
    Requests should keep their `Host`, but no two hosts share a path.
    """
    with world_class(kind)().serve(artifact.path()) as hosts:
        yield hosts


def package_folder(package: str, requirement: str) -> Path:
    """Folder of an installed package, which is not imported. Raises UserError naming what to install."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"this world is built from {requirement}, which is not installed: pip install {requirement}")
    return Path(spec.submodule_search_locations[0])
