"""What an artifact is made of, in 64 hex digits: stage, version, the config that matters, and the inputs."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from models.common.config import InitialiseFrom
from stages.base.artifact import canonical_json, file_sha256, is_remote
from stages.base.contract import FingerprintedAs, FingerprintedUnless, NotFingerprinted, UserError
from stages.base.external_files import ExternalFile, fingerprinted_files, is_system_file


def fingerprinted(value: Any) -> Any:
    """The fingerprinted half of a config as plain JSON values.

    Every field except those marked `NotFingerprinted` and those with the value of their `FingerprintedUnless`; of
    fields marked `ExternalFile`, the addresses.
    """
    if isinstance(value, InitialiseFrom):
        # Of folders of weights the contents count (`PretrainConfig.weight_files`), not where they lie.
        value = value.model_copy(update=dict.fromkeys(value.folders, "its contents"))
    if isinstance(value, BaseModel):
        fields = type(value).model_fields
        kept = {name: f.metadata for name, f in fields.items() if not _left_out(f.metadata, getattr(value, name))}
        entries = dict(_spelled(name, getattr(value, name), marks) for name, marks in kept.items())
        return entries | fingerprinted_files(value)
    if isinstance(value, Mapping):
        return {str(key): fingerprinted(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [fingerprinted(item) for item in value]
    return value


def _left_out(marks: Sequence[Any], value: Any) -> bool:
    return any(
        mark is NotFingerprinted
        or mark is ExternalFile
        or (isinstance(mark, FingerprintedUnless) and mark.value == value)
        for mark in marks
    )


def _spelled(name: str, value: Any, marks: Sequence[Any]) -> tuple[str, Any]:
    """Key and value of a field as fingerprints have them (`FingerprintedAs`)."""
    for mark in marks:
        if isinstance(mark, FingerprintedAs):
            name = mark.key or name
            value = mark.values.get(value, value) if mark.values else value
    return name, fingerprinted(value)


def fingerprint(
    stage: str, version: int, config: Any, inputs: Mapping[str, Iterable[str]], files: str | None = None
) -> str:
    """sha256 over the canonical JSON of all that determines an artifact.

    `config` is what :func:`fingerprinted` returns, `inputs` holds the fingerprints per role, `files` the digest of
    files from outside the workspace (:class:`FileDigests`). No file time, host path or unrelated config takes part.
    """
    parts = [stage, version, config, {role: list(prints) for role, prints in inputs.items()}, files]
    return hashlib.sha256(canonical_json(parts).encode()).hexdigest()


class FileDigests:
    """Digests of files outside the workspace by content; each file is read once and remembered by size and time.

    The memory (a JSON file) only saves work: it never takes part in a fingerprint.
    """

    def __init__(self, memory: Path) -> None:
        self._file = memory
        try:
            self._known: dict[str, list[Any]] = json.loads(memory.read_text("utf-8"))
        except (FileNotFoundError, json.JSONDecodeError):
            self._known = {}
        self._changed = False

    def digest(self, paths: Iterable[str] | Mapping[str, Iterable[str]], key: str) -> str:
        """One digest over the contents of files and folders (names relative to the folder given).

        Of several lists by name, which list a file is in counts, too. Raises UserError naming config key `key`, with
        the list's name, when a path does not exist.
        """
        listed: list[tuple[str, str]] = []
        lists: Mapping[str, Iterable[str]] = paths if isinstance(paths, Mapping) else {"": paths}
        for name, own in lists.items():
            for path in own:
                entries = self._entries(str(path), f"{key}.{name}" if name else key)
                listed.extend((f"{name}/{file}" if name else file, digest) for file, digest in entries)
        self._save()
        return hashlib.sha256(canonical_json(sorted(listed)).encode()).hexdigest()

    def _entries(self, path: str, key: str) -> list[tuple[str, str]]:
        if is_remote(path):
            return [(path.rsplit("/", 1)[-1], self._remote(path, key))]
        root = Path(path)
        if root.is_file():
            return [(root.name, self._local(root))]
        if root.is_dir():
            files = {p.relative_to(root).as_posix(): p for p in root.rglob("*") if p.is_file()}
            # Looking at a folder in macOS's Finder must not make its data new.
            return [(name, self._local(files[name])) for name in sorted(files) if not is_system_file(name)]
        raise UserError(f"{key}: no file or folder {path}; put it there or name the right place")

    def _local(self, path: Path) -> str:
        stat = path.stat()
        known = self._known.get(str(path.resolve()))
        if known and known[:2] == [stat.st_size, stat.st_mtime_ns]:
            return str(known[2])
        digest = file_sha256(path)
        self._known[str(path.resolve())] = [stat.st_size, stat.st_mtime_ns, digest]
        self._changed = True
        return digest

    def _remote(self, url: str, key: str) -> str:
        # An object store names a version by its ETag; reading terabytes to hash them would defeat the purpose.
        import fsspec

        fs, path = fsspec.core.url_to_fs(url)
        if not fs.exists(path):
            raise UserError(f"{key}: no file {url}; put it there or name the right place")
        info = fs.info(path)
        return str(info.get("ETag") or info.get("etag") or info.get("md5Hash") or fs.checksum(path))

    def _save(self) -> None:
        if not self._changed:
            return
        self._file.parent.mkdir(parents=True, exist_ok=True)
        partial = self._file.with_name(f"{self._file.name}.{os.getpid()}.part")
        partial.write_text(json.dumps(self._known), "utf-8")
        os.replace(partial, self._file)
        self._changed = False
