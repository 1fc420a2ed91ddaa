"""The raw shard: a tar with fixed headers."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

_HEADER = 512  # a ustar header; names here are far below its 100 characters, so there is never a second block


def write_tar(path: Path, members: Iterable[tuple[str, bytes]]) -> list[int]:
    """Write a ustar file with fixed headers; returns the offset of each member's data, in bytes."""
    offsets = []
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)  # mtime, uid and gid are 0 and the owner's names empty unless set
            info.size = len(data)
            info.mode = 0o644
            offsets.append(tar.offset + _HEADER)
            tar.addfile(info, io.BytesIO(data))
    return offsets
