"""What forgotten samples leave outside finished artifacts: unfinished ones, scratch folders, caches, reports."""

from __future__ import annotations

import re
import shutil
import tarfile
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.forgetting.plan import Plan
from pipelines.forgetting.wanted import Wanted
from pipelines.lineage import stage_of
from pipelines.store import ArtifactDir, Store
from stages.base.artifact import is_remote
from stages.base.forgetting import Gone
from stages.select.forget import without_pictures

#: Stages whose unfinished work is made of what was forgotten in a way that only making it again mends: their partitions
#: are cut out of the whole, or hold offsets into files that have just changed.
_WHOLE = ("index", "select", "shard", "tokens")
_IDENTITY = frozenset({"uid", "image_uid", "url", "sha256", "source_sha256"})
_WORD = re.compile(r"[0-9a-f]{32,64}")
_DATA = ("ingest", "download", "signals", *_WHOLE)


def drop_unfinished(artifact_dir: ArtifactDir, plan: Plan, wanted: Wanted, dry_run: bool) -> int:
    """Drop the commits of an unfinished artifact that hold a forgotten sample, with their files; returns how many."""
    stage = stage_of(artifact_dir)
    if artifact_dir.remote or stage not in _DATA:
        return 0
    gone = Gone(frozenset(plan.pairs), frozenset(plan.images | plan.touched))
    root, dropped = Path(artifact_dir.url), 0
    if not dry_run:
        # Whatever a killed worker left half-made; nobody works here, since the lock is ours.
        shutil.rmtree(root / "_tmp", ignore_errors=True)
        shutil.rmtree(root / "_forget", ignore_errors=True)
    for partition in sorted(artifact_dir.committed()):
        commit = artifact_dir.read_commit(partition)
        files = [root / f["name"] for f in commit.files] + [root / "_parts" / f["name"] for f in commit.parts]
        if stage not in _WHOLE and not any(holds(path, gone, wanted) for path in files):
            continue
        dropped += 1
        if not dry_run:
            (root / "_commits" / f"{partition}.json").unlink()
            for path in files:
                path.unlink(missing_ok=True)
    return dropped


def drop_scratch(store: Store, scratch: str | None, plan: Plan, wanted: Wanted) -> None:
    """Empty the scratch folders of unfinished data artifacts: they hold captions and pictures in passing.

    Of a download only the partitions go whose journal (`stages/download/spool.py`) has a forgotten image.
    """
    root = Path(scratch) if scratch else Path(store.tombstones).parent / "scratch"
    if is_remote(store.workspace) and not scratch:
        return
    marks = plan.images | plan.touched | wanted.uids | wanted.sha256
    for folder in root.glob("*-*") if root.is_dir() else ():
        stage = folder.name.rpartition("-")[0]
        if stage == "download":
            for journal in folder.glob("download/*/journal"):
                if not marks.isdisjoint(_WORD.findall(journal.read_text("utf-8"))):
                    shutil.rmtree(journal.parent)
        elif stage in _DATA:
            shutil.rmtree(folder)


def drop_cached(store: Store, plan: Plan, wanted: Wanted, dry_run: bool) -> int:
    """Remove the cache entries that hold a forgotten sample, or may; returns how many.

    An entry tells by its rows' identity, or by its metadata (`made_of`: sha256 of the files it was made from); of one
    that tells nothing nobody can say that it is clean.
    """
    if not plan.pairs and not plan.images:
        return 0
    gone = Gone(frozenset(plan.pairs), frozenset(plan.images | plan.touched))
    if is_remote(store.workspace):
        return 0
    dropped = 0
    root = Path(store.tombstones).parent / "cache"
    for path in sorted(p for p in root.rglob("*") if p.is_file()) if root.is_dir() else ():
        if holds(path, gone, wanted) or not _clean(path, plan.digests):
            dropped += 1
            if not dry_run:
                path.unlink()
    return dropped


def _clean(path: Path, digests: set[str]) -> bool:
    """Whether an entry without a forgotten row is known to be made of other files than those that had one."""
    if path.suffix != ".parquet":
        return False
    schema = pq.read_schema(path)
    if not _IDENTITY.isdisjoint(schema.names):
        return True
    made_of = (schema.metadata or {}).get(b"made_of")
    return made_of is not None and digests.isdisjoint(made_of.decode().split(","))


def blank_reports(folder: Path, plan: Plan, dry_run: bool) -> int:
    """Take the pictures out of the pages that `pairmill report` wrote; returns how many pages had one."""
    images = plan.images | plan.touched
    changed = 0
    for path in sorted(folder.rglob("*.html")) if folder.is_dir() else ():
        page = path.read_text("utf-8")
        new = without_pictures(page, images.__contains__)
        if new != page:
            changed += 1
            if not dry_run:
                path.write_text(new, "utf-8")
    return changed


def holds(path: Path, gone: Gone, wanted: Wanted) -> bool:
    """Whether a table has a row of a forgotten sample, or a tar a member."""
    if not path.exists():
        return False
    if path.suffix == ".tar":
        with tarfile.open(path) as tar:
            return any(m.name.partition(".")[0] in gone.pairs | gone.images for m in tar)
    return any(_mentions(table, gone, wanted) for table in _tables(path))


def _mentions(table: pa.Table, gone: Gone, wanted: Wanted) -> bool:
    if "uid" in table.column_names and pc.any(gone.has_pair(table["uid"])).as_py():
        return True
    if "image_uid" in table.column_names and pc.any(gone.has_image(table["image_uid"])).as_py():
        return True
    return bool(wanted.images(table).any()) or ("uid" in table.column_names and bool(wanted.pairs(table).any()))


def _tables(path: Path) -> Iterable[pa.Table]:
    if path.suffix == ".parquet":
        parquet = pq.ParquetFile(path)
        yield parquet.read(columns=[name for name in parquet.schema_arrow.names if name in _IDENTITY])
    elif path.suffix == ".arrow":
        with pa.memory_map(str(path)) as mapped:
            table = pa.ipc.open_file(mapped).read_all()
        yield table.select([name for name in table.column_names if name in _IDENTITY])
