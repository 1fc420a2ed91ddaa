"""Removes samples outside finished artifacts: from unfinished ones, scratch folders, caches and report pages."""

from __future__ import annotations

import re
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.forgetting.forget_list import IDENTITY, ForgetList
from pipelines.forgetting.plan import ForgetPlan
from pipelines.lineage import stage_of
from pipelines.store import SHORT, ArtifactDir, Store
from stages.base.artifact import is_remote
from stages.base.contract import Stage, UserError
from stages.base.forgetting import Forgotten
from stages.select.forget import without_pictures

Stages = Mapping[str, type[Stage[Any]]]

_NAMED = 3  # folders in a message
#: Names that `Store.scratch` gives: a shared scratch folder may hold what is not the pipeline's.
_SCRATCH = re.compile(rf"(?P<stage>.+)-[0-9a-f]{{{SHORT}}}")


def refuse_unknown_stages(
    store: Store, artifact_dirs: Sequence[ArtifactDir], scratch: str | None, stages: Stages
) -> None:
    """Raises UserError for artifacts and scratch folders of stages that are not in this pipeline: what they hold, how
    to remove it, and which positions of other artifacts they repeat is not known.

    Scratch folders are looked at in the workspace only: others may use what `scratch`, a shared folder, holds.
    """
    unknown = [d.url for d in artifact_dirs if stage_of(d) not in stages and _has_files(d)]
    folders = () if scratch else _scratch_folders(store, None)
    unknown += [str(folder) for stage, folder in folders if stage not in stages and any(folder.iterdir())]
    if not unknown:
        return
    more = f" and {len(unknown) - _NAMED:,} more" if len(unknown) > _NAMED else ""
    raise UserError(
        f"forget: {', '.join(unknown[:_NAMED])}{more}: made by a stage that this version does not have, and may hold "
        "samples that it cannot remove; delete it, or install what made it, and try again (nothing was changed)"
    )


def _has_files(artifact_dir: ArtifactDir) -> bool:
    if artifact_dir.remote:
        return True
    # A lock alone holds nothing.
    return any(path.is_file() and path.name != "_lock" for path in Path(artifact_dir.url).rglob("*"))


def drop_partitions(
    artifact_dir: ArtifactDir, stage: type[Stage[Any]], plan: ForgetPlan, entries: ForgetList, dry_run: bool
) -> int:
    """Drop the commits of an unfinished artifact that hold a forgotten sample, with their files: all commits, unless
    the stage keeps clean partitions. Returns their number."""
    if not stage.holds_samples:
        return 0
    forgotten = Forgotten(frozenset(plan.pairs), frozenset(plan.images | plan.touched))
    dropped = 0
    if not dry_run:
        # What a killed worker left; nothing runs here, since this command holds the lock.
        for name in ("_tmp", "_forget"):
            artifact_dir.remove(name)
    for partition in sorted(artifact_dir.committed()):
        commit = artifact_dir.read_commit(partition)
        names = [f["name"] for f in commit.files] + [f"_parts/{f['name']}" for f in commit.parts]
        if stage.keeps_clean_partitions:
            with _readable(artifact_dir, names) as files:
                if _clean_partition(files, forgotten, entries):
                    continue
        dropped += 1
        if not dry_run:
            for name in (f"_commits/{partition}.json", *names):
                artifact_dir.remove(name)
    return dropped


@contextmanager
def _readable(artifact_dir: ArtifactDir, names: Sequence[str]) -> Iterator[list[Path]]:
    """Local paths of some files of an artifact; copies that are removed again, if it is in an object store."""
    if not artifact_dir.remote:
        yield [Path(artifact_dir.url, name) for name in names]
        return
    with tempfile.TemporaryDirectory(prefix="pairmill-forget-") as folder:
        artifact_dir.fetch(names, "", Path(folder))
        yield [Path(folder, name) for name in names]


def _clean_partition(files: Sequence[Path], forgotten: Forgotten, entries: ForgetList) -> bool:
    """Whether some file names the partition's samples, and none a forgotten one."""
    return any(map(_names_samples, files)) and not any(holds(path, forgotten, entries) for path in files)


def _names_samples(path: Path) -> bool:
    return path.exists() and (path.suffix == ".tar" or any(table.column_names for table in _tables(path)))


def clear_scratch(store: Store, scratch: str | None, stages: Stages, plan: ForgetPlan, entries: ForgetList) -> None:
    """Remove forgotten samples from the scratch folders of unfinished artifacts, as each stage does
    (`Stage.forget_scratch`)."""
    marks = plan.images | plan.touched | plan.pairs | entries.uids | entries.sha256
    for name, folder in _scratch_folders(store, scratch):
        if name in stages and stages[name].holds_samples:
            stages[name].forget_scratch(folder, marks)


def _scratch_folders(store: Store, scratch: str | None) -> Iterator[tuple[str, Path]]:
    """Stage name and path of every scratch folder; `scratch` is `cluster.scratch`, where it is set."""
    if is_remote(store.workspace) and not scratch:
        return
    root = Path(scratch) if scratch else Path(store.tombstones).parent / "scratch"
    for folder in sorted(root.glob("*-*")) if root.is_dir() else ():
        if folder.is_dir() and (match := _SCRATCH.fullmatch(folder.name)):
            yield match["stage"], folder


def drop_cache_entries(store: Store, plan: ForgetPlan, entries: ForgetList, dry_run: bool) -> int:
    """Remove the cache entries that hold a forgotten sample, or may; returns their number.

    An entry is kept only if it is shown to be clean: by the uids of its rows, or by its metadata (`made_of`: sha256 of
    the files it was made from).
    """
    if not plan.pairs and not plan.images:
        return 0
    forgotten = Forgotten(frozenset(plan.pairs), frozenset(plan.images | plan.touched))
    root = ArtifactDir(store.cache("").rstrip("/"))
    dropped = 0
    for name in root.files():
        with _readable(root, [name]) as (path,):
            clean = not holds(path, forgotten, entries) and _clean(path, plan.digests)
        if not clean:
            dropped += 1
            if not dry_run:
                root.remove(name)
    return dropped


def _clean(path: Path, digests: set[str]) -> bool:
    """Whether an entry without a forgotten row is known to be made of other files than those that held one."""
    if path.suffix != ".parquet":
        return False
    schema = pq.read_schema(path)
    if not IDENTITY.isdisjoint(schema.names):
        return True
    made_of = (schema.metadata or {}).get(b"made_of")
    return made_of is not None and digests.isdisjoint(made_of.decode().split(","))


def blank_pages(folder: Path, plan: ForgetPlan, dry_run: bool) -> int:
    """Remove the forgotten pictures from the pages that `pairmill report` wrote; returns how many pages had one."""
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


def holds(path: Path, forgotten: Forgotten, entries: ForgetList) -> bool:
    """Whether a table has a row of a forgotten sample, or a tar a member named after one."""
    if not path.exists():
        return False
    if path.suffix == ".tar":
        with tarfile.open(path) as tar:
            return any(m.name.partition(".")[0] in forgotten.pairs | forgotten.images for m in tar)
    return any(_has_row(table, forgotten, entries) for table in _tables(path))


def _has_row(table: pa.Table, forgotten: Forgotten, entries: ForgetList) -> bool:
    if "uid" in table.column_names and pc.any(forgotten.pair_mask(table["uid"])).as_py():
        return True
    if "image_uid" in table.column_names and pc.any(forgotten.image_mask(table["image_uid"])).as_py():
        return True
    return bool(entries.image_rows(table).any()) or (
        "uid" in table.column_names and bool(entries.pair_rows(table).any())
    )


def _tables(path: Path) -> Iterable[pa.Table]:
    if path.suffix == ".parquet":
        parquet = pq.ParquetFile(path)
        yield parquet.read(columns=[name for name in parquet.schema_arrow.names if name in IDENTITY])
    elif path.suffix == ".arrow":
        with pa.memory_map(str(path)) as mapped:
            table = pa.ipc.open_file(mapped).read_all()
        yield table.select([name for name in table.column_names if name in IDENTITY])
