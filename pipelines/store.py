"""Where artifacts live in the workspace: one folder each, with the commits of the partitions made so far.

<workspace>/artifacts/<stage>/<instance>-<fingerprint[:12]>/
    manifest.json  run.json        the artifact exists once the first does
    _plan.json  _commits/<id>.json  _parts/  _tmp/   while it is being made
<workspace>/cache/<stage>/         what its artifacts share, named by contents; deleting it costs time only
<workspace>/forgotten.json         samples that no run may bring back
<workspace>/forgetting.json        samples that are being removed; nothing is made meanwhile
<workspace>/latest/<node>.json     the newest finished artifact of a node, to say what changed since
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import json
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

from stages.base.artifact import MANIFEST, RUN_RECORD, Artifact, canonical_json, file_sha256, is_remote
from stages.base.contract import UserError

#: Hex digits of the fingerprint in a folder's name; the whole one is in the manifest.
SHORT = 12

#: Requests to an object store, or files that are removed, at a time.
_THREADS = 32

#: Name of the file, beside `forgotten.json`, that is there as long as `pairmill forget` is not done.
FORGET_PLAN = "forgetting.json"

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Commit:
    """What one partition made: its files in `out` and `_parts` with size and sha256, and its counters."""

    files: list[dict[str, Any]]
    parts: list[dict[str, Any]]
    counts: dict[str, int]
    report: dict[str, Any] = field(default_factory=dict)
    """The partition's report for `Stage.on_commit`; never part of the artifact."""


class ArtifactDir:
    """The folder of one artifact, finished or not; local or at an fsspec URL."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.remote = is_remote(url)
        if self.remote:
            import fsspec

            self._fs, self._root = fsspec.core.url_to_fs(url)

    # -- small files ---------------------------------------------------------------------------------------------
    def read(self, name: str) -> str | None:
        """Text of a file, or None where there is none."""
        try:
            if self.remote:
                return cast(str, self._fs.cat_file(f"{self._root}/{name}").decode())
            return Path(self.url, name).read_text("utf-8")
        except FileNotFoundError:
            return None

    def write(self, name: str, text: str) -> None:
        """Write a file whole or not at all (rename on a file system; object stores put atomically)."""
        if self.remote:
            self._fs.pipe_file(f"{self._root}/{name}", text.encode())
            return
        target = Path(self.url, name)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.{os.getpid()}.part")
        partial.write_text(text, "utf-8")
        os.replace(partial, target)

    def publish(self, folder: Path, below: str = "") -> list[dict[str, Any]]:
        """Move a local folder's files to the artifact (below a sub-folder); returns name, size, sha256 of each."""
        entries = []
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            name = path.relative_to(folder).as_posix()
            entries.append({"name": name, "size": path.stat().st_size, "sha256": file_sha256(path)})
            if self.remote:
                self._fs.put_file(str(path), f"{self._root}/{below}{name}")
            else:
                target = Path(self.url, below + name)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.move(path, target)
        return entries

    def fetch(self, names: Sequence[str], below: str, folder: Path) -> None:
        """Make files of the artifact readable in a local folder: hard links, or copies from an object store."""
        for _ in in_threads(lambda name: self._fetch(name, below, folder), names, _THREADS if self.remote else 1):
            pass

    def each(self, names: Iterable[str], below: str, folder: Path) -> Iterator[Path]:
        """As :meth:`fetch`, a file at a time: the path of each, which may be gone when the next one is asked for."""
        if not self.remote:
            yield from (Path(self.url, below + name) for name in names)
            return
        for path in in_threads(lambda name: self._fetch(name, below, folder), names, _THREADS):
            try:
                yield path
            finally:
                path.unlink()

    def _fetch(self, name: str, below: str, folder: Path) -> Path:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if self.remote:
            self._fs.get_file(f"{self._root}/{below}{name}", str(target))
        else:
            os.link(Path(self.url, below + name), target)
        return target

    def files(self) -> list[str]:
        """Names of all files below the folder, sorted."""
        if self.remote:
            found = self._fs.find(self._root) if self._fs.exists(self._root) else []
            return sorted(str(path).removeprefix(self._root).lstrip("/") for path in found)
        return sorted(path.relative_to(self.url).as_posix() for path in Path(self.url).rglob("*") if path.is_file())

    def remove(self, name: str) -> None:
        """Remove a file, or a folder with all in it, if it is there."""
        if self.remote:
            if self._fs.exists(f"{self._root}/{name}"):
                self._fs.rm(f"{self._root}/{name}", recursive=True)
        elif Path(self.url, name).is_dir():
            _remove(Path(self.url, name))
        else:
            Path(self.url, name).unlink(missing_ok=True)

    # -- state ---------------------------------------------------------------------------------------------------
    def artifact(self) -> Artifact | None:
        """The finished artifact, or None."""
        exists = self._fs.exists(f"{self._root}/{MANIFEST}") if self.remote else Path(self.url, MANIFEST).exists()
        return Artifact(self.url) if exists else None

    def plan(self) -> list[str] | None:
        """Ids of all partitions, once the stage has been planned."""
        text = self.read("_plan.json")
        return cast("list[str]", json.loads(text)) if text else None

    def committed(self) -> set[str]:
        """Ids of the partitions that are done."""
        if self.remote:
            folder = f"{self._root}/_commits"
            names = self._fs.ls(folder, detail=False) if self._fs.exists(folder) else []
        else:
            folder_path = Path(self.url, "_commits")
            names = os.listdir(folder_path) if folder_path.is_dir() else []
        return {
            n.rsplit("/", 1)[-1][:-5] for n in names if n.endswith(".json") and not n.rsplit("/", 1)[-1].startswith(".")
        }

    def in_order(self, partitions: AbstractSet[str], plan: Sequence[str]) -> list[str]:
        """Committed partitions, the oldest first; those of the same moment in the order of the plan."""
        if self.remote:
            info = self._fs.ls(f"{self._root}/_commits", detail=True) if partitions else []
            moments = {entry["name"].rsplit("/", 1)[-1][:-5]: _moment(entry) for entry in info}
        else:
            folder = Path(self.url, "_commits")
            moments = {id: (folder / f"{id}.json").stat().st_mtime_ns / 1e9 for id in partitions}
        place = {id: number for number, id in enumerate(plan)}
        return sorted(partitions, key=lambda id: (moments[id], place[id]))

    def commit(self, partition: str, commit: Commit) -> None:
        """Record a partition as done: the last thing written for it."""
        self.write(f"_commits/{partition}.json", canonical_json(commit.__dict__))

    def read_commit(self, partition: str) -> Commit:
        """The record of a finished partition; raises FileNotFoundError where there is none."""
        text = self.read(f"_commits/{partition}.json")
        if text is None:
            raise FileNotFoundError(f"{self.url}: partition {partition} has no commit")
        return Commit(**json.loads(text))

    def read_commits(self, partitions: Iterable[str]) -> Iterator[Commit]:
        """The records of finished partitions, in the order asked for; of an object store many at once."""
        return in_threads(self.read_commit, partitions, _THREADS if self.remote else 1)

    def seal(self, manifest: Mapping[str, Any], run: Mapping[str, Any]) -> Artifact:
        """Write the manifest, from which on the artifact exists; then remove what was only needed to make it."""
        self.write(RUN_RECORD, json.dumps(run, indent=1, sort_keys=True, default=str))
        self.write(MANIFEST, json.dumps(manifest, indent=1, sort_keys=True))
        self.tidy()
        return Artifact(self.url)

    def tidy(self) -> None:
        """Remove everything that only mattered while the artifact was being made."""
        for name in ("_parts", "_tmp", "_commits", "_plan.json"):
            self.remove(name)
        if not self.remote:
            for torn in Path(self.url).glob(".*.part"):  # a kill in the middle of `write`
                torn.unlink(missing_ok=True)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the artifact while making it; a second run on the same workspace is refused (local folders only)."""
        if self.remote:
            yield
            return
        Path(self.url).mkdir(parents=True, exist_ok=True)
        # The file stays: unlinking it would let two runs hold different locks of the same name.
        with open(Path(self.url, "_lock"), "w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(
                    f"{self.url} is being made by another pairmill run; wait for it, or stop it first"
                ) from None
            yield


@dataclass(frozen=True)
class Store:
    """The artifacts of one workspace."""

    workspace: str

    def _folder(self, *names: str) -> str:
        root = self.workspace.rstrip("/") if is_remote(self.workspace) else os.path.abspath(self.workspace)
        return "/".join([root, *names])

    def artifact_dir(self, stage: str, instance: str, fingerprint: str) -> ArtifactDir:
        """Where the artifact of that fingerprint is or will be."""
        label = f"{instance.replace('/', '.')}-" if instance else ""
        return ArtifactDir(self._folder("artifacts", stage, label + fingerprint[:SHORT]))

    def scratch(self, stage: str, fingerprint: str, root: str | None = None) -> Path:
        """The local or shared folder for what must outlive a kill of an unfinished artifact."""
        name = f"{stage}-{fingerprint[:SHORT]}"
        if root:
            return Path(os.path.abspath(root), name)  # Ray's workers have another current folder
        if is_remote(self.workspace):
            raise UserError(
                f"workspace={self.workspace} is an object store: set cluster.scratch to a folder that all nodes share"
            )
        return Path(self._folder("scratch", name))

    def cache(self, stage: str) -> str:
        """What all artifacts of a stage share: costly results named by their contents."""
        return self._folder("cache", stage)

    @property
    def tombstones(self) -> str:
        """The file of forgotten samples."""
        return self._folder("forgotten.json")

    @property
    def half_forgotten(self) -> bool:
        """Whether artifacts may hold some of their files before and some after samples were removed from them."""
        return ArtifactDir(self._folder()).read(FORGET_PLAN) is not None

    def latest(self, node: str) -> dict[str, Any] | None:
        """Fingerprint, config and inputs of the node's newest finished artifact."""
        text = ArtifactDir(self._folder("latest")).read(f"{_file_name(node)}.json")
        return json.loads(text) if text else None

    def set_latest(self, node: str, record: Mapping[str, Any]) -> None:
        """Remember a finished artifact as the node's newest."""
        ArtifactDir(self._folder("latest")).write(f"{_file_name(node)}.json", canonical_json(record))


def in_threads(function: Callable[[T], R], values: Iterable[T], threads: int) -> Iterator[R]:
    """`function` of each value, in order; no further ahead than twice the number of threads."""
    if threads == 1:
        yield from map(function, values)
        return
    waiting: deque[Future[R]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for value in values:
                waiting.append(pool.submit(function, value))
                if len(waiting) > 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _remove(folder: Path) -> None:
    """Remove a folder of many files: some file systems take milliseconds for each, but many at once."""
    paths = (os.path.join(root, name) for root, _, names in os.walk(folder) for name in names)
    for _ in in_threads(os.unlink, paths, _THREADS):
        pass
    shutil.rmtree(folder)


def _moment(entry: Mapping[str, Any]) -> float:
    """Seconds since the epoch at which an object was written, 0 where its store does not state it."""
    for key in ("mtime", "LastModified", "last_modified", "updated", "created"):  # local, s3, abfs, gcs, memory
        moment = entry.get(key)
        if isinstance(moment, str):
            moment = datetime.datetime.fromisoformat(moment)
        if isinstance(moment, datetime.datetime):
            return moment.timestamp()
        if isinstance(moment, int | float):
            return float(moment)
    return 0.0


def _file_name(node: str) -> str:
    return node.replace("/", ".").replace("[", "-").replace("]", "")
