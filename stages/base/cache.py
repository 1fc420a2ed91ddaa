"""A store for what is costly to make and named by what it was made from; sharing it saves work and nothing else."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.base.artifact import canonical_json, is_remote


@dataclass(frozen=True)
class Cache:
    """Files by key in a folder or at an fsspec URL (`StageContext.cache`). A key written twice is written with equal
    bytes."""

    url: str

    @staticmethod
    def key(**parts: Any) -> str:
        """64 hex digits for JSON-serialisable parts that together determine the content."""
        return hashlib.sha256(canonical_json(parts).encode()).hexdigest()

    def get(self, key: str, suffix: str = "") -> Path | None:
        """A local path with the content of a key (of a remote cache: a copy in the temporary folder), or None."""
        if not is_remote(self.url):
            path = Path(self.url, key[:2], key + suffix)
            return path if path.exists() else None
        import fsspec

        files, root = fsspec.core.url_to_fs(self.url)
        place = f"{root}/{key[:2]}/{key}{suffix}"
        if not files.exists(place):
            return None
        copy = Path(tempfile.mkdtemp(prefix="pairmill-cache-")) / (key + suffix)
        files.get_file(place, str(copy))
        return copy

    def put(self, key: str, file: Path, suffix: str = "") -> None:
        """Store a copy of a local file, whole or not at all."""
        if is_remote(self.url):
            import fsspec

            files, root = fsspec.core.url_to_fs(self.url)
            files.put_file(str(file), f"{root}/{key[:2]}/{key}{suffix}")
            return
        target = Path(self.url, key[:2], key + suffix)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}.part")
        shutil.copyfile(file, partial)
        os.replace(partial, target)
