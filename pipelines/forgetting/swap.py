"""Replaces files of a finished artifact in a way that survives a kill at any moment.

The new files and the new manifest are put into `_forget/` inside the artifact, the manifest last. Then the files are
moved to their names, those no longer listed are deleted, and the manifest follows. The next `pairmill forget` completes
a `_forget/` that has its manifest.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipelines.store import ArtifactDir
from stages.base.artifact import MANIFEST, Artifact, file_sha256
from stages.base.forgetting import Removal

STAGING = "_forget"


@contextmanager
def staging(artifact_dir: ArtifactDir) -> Iterator[Path]:
    """An empty folder for new files: inside the artifact on a file system, so that moving them is a rename."""
    if artifact_dir.remote:
        with tempfile.TemporaryDirectory(prefix="pairmill-forget-") as temporary:
            yield Path(temporary)
        return
    folder = Path(artifact_dir.url, STAGING)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    yield folder


def replace_files(artifact: Artifact, removal: Removal, folder: Path) -> None:
    """Replace the rewritten files by those in `folder`, remove the deleted ones, and update the manifest."""
    manifest = updated_manifest(artifact.manifest, removal, folder)
    artifact_dir = ArtifactDir(artifact.url)
    text = json.dumps(manifest, indent=1, sort_keys=True)
    if artifact_dir.remote:
        for name in removal.rewritten:
            artifact_dir._fs.put_file(str(folder / name), f"{artifact_dir._root}/{STAGING}/{name}")
        artifact_dir.write(f"{STAGING}/{MANIFEST}", text)
    else:
        partial = folder / f".{MANIFEST}.part"
        partial.write_text(text, "utf-8")
        os.replace(partial, folder / MANIFEST)
    complete(artifact_dir)


def updated_manifest(manifest: dict[str, Any], removal: Removal, folder: Path) -> dict[str, Any]:
    """The manifest with new sizes, digests and counts, and the note `forgotten`: samples removed in all."""
    files = {entry["name"]: entry for entry in manifest["files"] if entry["name"] not in removal.deleted}
    for name in removal.rewritten:
        path = folder / name
        files[name] = {"name": name, "size": path.stat().st_size, "sha256": file_sha256(path)}
    counts = dict(manifest.get("counts", {}))
    for name, change in removal.counts.items():
        # No count is added that the stage does not keep, except those that only forgetting raises.
        if change and (name in counts or change > 0):
            counts[name] = counts.get(name, 0) + change
            if not counts[name] and name.startswith(("status.", "dropped.")):
                del counts[name]  # as if it had never occurred
    return {
        **manifest,
        "counts": dict(sorted(counts.items())),
        "files": [files[name] for name in sorted(files)],
        "forgotten": manifest.get("forgotten", 0) + removal.samples,
    }


def complete(artifact_dir: ArtifactDir) -> bool:
    """Complete a replacement whose `_forget/` has its manifest, or drop an incomplete one; returns whether it had."""
    text = artifact_dir.read(f"{STAGING}/{MANIFEST}")
    if text is None:
        _drop(artifact_dir)
        return False
    after = json.loads(text)
    before = json.loads(artifact_dir.read(MANIFEST) or "{}")
    listed = {entry["name"] for entry in after["files"]}
    deleted = [entry["name"] for entry in before.get("files", []) if entry["name"] not in listed]
    if artifact_dir.remote:
        root = f"{artifact_dir._root}/{STAGING}/"
        for path in artifact_dir._fs.find(root):
            name = str(path).removeprefix(root)
            if name != MANIFEST:
                artifact_dir._fs.copy(path, f"{artifact_dir._root}/{name}")
        for name in deleted:
            if artifact_dir._fs.exists(f"{artifact_dir._root}/{name}"):
                artifact_dir._fs.rm_file(f"{artifact_dir._root}/{name}")
    else:
        folder = Path(artifact_dir.url, STAGING)
        for path in sorted(p for p in folder.rglob("*") if p.is_file() and p != folder / MANIFEST):
            os.replace(path, Path(artifact_dir.url, path.relative_to(folder)))
        for name in deleted:
            Path(artifact_dir.url, name).unlink(missing_ok=True)
    artifact_dir.write(MANIFEST, text)
    _drop(artifact_dir)
    _drop_copy(after["fingerprint"])
    return True


def _drop(artifact_dir: ArtifactDir) -> None:
    if not artifact_dir.remote:
        shutil.rmtree(Path(artifact_dir.url, STAGING), ignore_errors=True)
    elif artifact_dir._fs.exists(f"{artifact_dir._root}/{STAGING}"):
        artifact_dir._fs.rm(f"{artifact_dir._root}/{STAGING}", recursive=True)


def _drop_copy(fingerprint: str) -> None:
    """Remove this machine's copy of a remote artifact (`Artifact.path`)."""
    cache = Path(os.environ.get("PAIRMILL_CACHE", Path.home() / ".cache" / "pairmill"))
    shutil.rmtree(cache / fingerprint, ignore_errors=True)
