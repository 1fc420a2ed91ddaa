"""A finished stage's output: an immutable directory that exists once its `manifest.json` does."""

from __future__ import annotations

import fnmatch
import hashlib
import io
import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any, cast

MANIFEST = "manifest.json"
RUN_RECORD = "run.json"


def file_sha256(path: str | Path) -> str:
    """Hex sha256 of a local file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no insignificant spaces, so equal values have equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def is_remote(url: str) -> bool:
    """Whether a path names an fsspec protocol (``s3://...``) and not a local folder."""
    return "://" in url and not url.startswith("file://")


class LocalFile(io.BufferedReader):
    """A local file opened for reading, which Arrow opens again by its path.

    Arrow reads a Python file in threads of its own, which need the interpreter for it: a command that ends at that
    moment is aborted by the C++ runtime ("terminate called without an active exception").
    """

    def __init__(self, path: str) -> None:
        super().__init__(io.FileIO(path))

    def __fspath__(self) -> str:
        return str(self.raw.name)  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Artifact:
    """A finished artifact at a folder or fsspec URL.

    Only names listed in the manifest belong to it; anything else in the folder is the runner's own.
    """

    url: str

    def __reduce__(self) -> tuple[type[Artifact], tuple[str]]:
        # Without the manifest, which may list a million files: a worker that needs it reads it once.
        return Artifact, (self.url,)

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """The parsed `manifest.json`. Raises FileNotFoundError when the artifact is not finished."""
        with self.open(MANIFEST) as file:
            return cast("dict[str, Any]", json.loads(file.read()))

    @property
    def fingerprint(self) -> str:
        """64 hex digits naming stage, version, config and inputs."""
        return cast(str, self.manifest["fingerprint"])

    @property
    def counts(self) -> dict[str, int]:
        """Counters summed over partitions and `finish`."""
        return cast("dict[str, int]", self.manifest["counts"])

    def names(self, pattern: str = "*") -> list[str]:
        """File names relative to the artifact, sorted, that match a glob pattern (``*`` also matches ``/``)."""
        return [f["name"] for f in self.manifest["files"] if fnmatch.fnmatchcase(f["name"], pattern)]

    def open(self, name: str) -> IO[bytes]:
        """Open one file for reading bytes, wherever the artifact is stored."""
        if not is_remote(self.url):
            return LocalFile(os.path.join(self.url.removeprefix("file://"), name))
        import fsspec

        return cast("IO[bytes]", fsspec.open(f"{self.url}/{name}", "rb").open())

    def path(self, name: str = "") -> Path:
        """Local path of one file (or of the whole folder, for ``""``); a remote one is fetched into the cache."""
        if not is_remote(self.url):
            return Path(self.url, name)
        import fsspec

        # By the manifest's contents: `pairmill forget` rewrites files of an artifact and keeps its fingerprint.
        edition = hashlib.sha256(canonical_json(self.manifest).encode()).hexdigest()[:16]
        root = Path(os.environ.get("PAIRMILL_CACHE", Path.home() / ".cache" / "pairmill"))
        cache = root / self.fingerprint / edition
        for file_name in [name] if name else [MANIFEST, *self.names()]:
            target = cache / file_name
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                partial = target.with_name(f"{target.name}.{os.getpid()}.part")
                fs, root = fsspec.core.url_to_fs(self.url)
                fs.get_file(f"{root}/{file_name}", str(partial))
                os.replace(partial, target)
        return cache / name

    def read_json(self, name: str) -> Any:
        """Parse one JSON file of the artifact."""
        with self.open(name) as file:
            return json.loads(file.read())
