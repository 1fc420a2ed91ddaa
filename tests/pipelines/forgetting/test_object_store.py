"""What lies outside finished artifacts is forgotten in an object store as in a folder."""

from __future__ import annotations

import io
import uuid
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.forgetting.forget_list import read_forget_list
from pipelines.forgetting.leftovers import drop_cache_entries, drop_partitions
from pipelines.forgetting.plan import ForgetPlan
from pipelines.store import Commit, Store
from stages.base.contract import Stage
from stages.shard.stage import Shard
from stages.signals.stage import Signals

CLEAN, HELD = "0" * 32, "1" * 32


@pytest.fixture
def store() -> Store:
    """An empty workspace."""
    return Store(f"memory://forgetting-{uuid.uuid4().hex}/workspace")


def put(store: Store, name: str, uid: str) -> None:
    import fsspec

    made = io.BytesIO()
    pq.write_table(pa.table({"uid": [uid], "image_uid": [uid]}), made)
    files, root = fsspec.core.url_to_fs(store.workspace)
    files.pipe_file(f"{root}/{name}", made.getvalue())


@pytest.mark.parametrize(("stage", "left"), [(Shard, set()), (Signals, {"clean"})])
def test_partitions_with_a_sample_are_made_again(store: Store, stage: type[Stage[Any]], left: set[str]) -> None:
    artifact_dir = store.artifact_dir(stage.name, "", "a" * 64)
    artifact_dir.write("_tmp/torn.txt", "of a killed worker")
    for name, uid in (("clean", CLEAN), ("held", HELD)):
        below = artifact_dir.url.removeprefix(store.workspace).lstrip("/")
        put(store, f"{below}/images-{name}.parquet", uid)
        put(store, f"{below}/_parts/part-{name}.parquet", uid)
        artifact_dir.commit(name, Commit([{"name": f"images-{name}.parquet"}], [{"name": f"part-{name}.parquet"}], {}))
    plan, entries = ForgetPlan(pairs={HELD}, images={HELD}), read_forget_list([HELD], "list")
    before = artifact_dir.files()
    assert drop_partitions(artifact_dir, stage, plan, entries, dry_run=True) == 2 - len(left)
    assert artifact_dir.files() == before
    assert drop_partitions(artifact_dir, stage, plan, entries, dry_run=False) == 2 - len(left)
    assert artifact_dir.committed() == left
    names = {form.format(n) for n in left for form in ("images-{}.parquet", "_parts/part-{}.parquet")}
    assert set(artifact_dir.files()) == names | {f"_commits/{n}.json" for n in left}


def test_cache_entries_with_a_sample_are_removed(store: Store) -> None:
    plan, entries = ForgetPlan(pairs={HELD}, images={HELD}), read_forget_list([HELD], "list")
    assert drop_cache_entries(store, plan, entries, dry_run=False) == 0
    put(store, "cache/signals/00/clean.parquet", CLEAN)
    put(store, "cache/signals/11/held.parquet", HELD)
    assert drop_cache_entries(store, plan, entries, dry_run=False) == 1
    assert drop_cache_entries(store, plan, entries, dry_run=False) == 0
