"""Serving a world's URLs on this machine, for the stage that downloads them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from stages.base.artifact import Artifact
from stages.world.plugin import world_class


@contextmanager
def serving(artifact: Artifact, kind: str) -> Iterator[dict[str, str]]:
    """Host names as in the world's lists -> ``127.0.0.1:port`` of a server that lives as long as the context.

    The lists name fixed hosts in the reserved TLD `.test` (RFC 6761), so that uids do not depend on a port.
    Requests should keep their `Host`, but no two hosts share a path.
    """
    with world_class(kind)().serve(artifact.path()) as hosts:
        yield hosts
