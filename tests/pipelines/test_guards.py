"""What a stage refuses is refused by every run, not only by the one that made the last partition."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipelines.cluster import ClusterConfig
from pipelines.node import Dag, Node
from pipelines.progress import Progress
from pipelines.run_partition import ArtifactJob, run_partition
from pipelines.runner import Runner, pending
from pipelines.state import Workspace
from pipelines.store import ArtifactDir, Commit, Store
from stages.base.contract import UserError
from stages.download.config import DownloadConfig
from stages.download.stage import Download
from stages.ingest.config import IngestConfig
from stages.ingest.plugins import source_config
from stages.ingest.stage import Ingest


def _run(workspace: Workspace, target: str) -> None:
    tracker: Any = type("Tracker", (), {"invocation": "test", "__getattr__": lambda self, name: lambda *a, **k: None})()
    with Progress() as progress:
        Runner(workspace, ClusterConfig(cpus=2), tracker, progress, False).run(pending(workspace, [target]))


def _refused(workspace: Workspace, target: str, match: str, times: int = 3) -> None:
    for _ in range(times):
        with pytest.raises(UserError, match=match):
            _run(workspace, target)
        assert workspace.artifact(workspace.dag[target]) is None
        assert workspace.state(workspace.dag[target]).standing != "up to date"


def _ingest(root: Path, paths: list[str], kind: str = "laion", **settings: Any) -> Workspace:
    source = source_config("mine", {"kind": kind, "paths": paths, **settings.pop("fields", {})})
    node = Node(Ingest, "mine", IngestConfig(name="mine", source=source, **settings))
    return Workspace({node.id: node}, Store(str(root / "workspace")))


@pytest.mark.parametrize("guard", ["run", "on_commit", "finish"])
@pytest.mark.parametrize("executor", ["ray_tasks", "driver"])
def test_a_stage_that_was_refused_is_refused_again_wherever_its_guard_is(toy: Any, guard: str, executor: str) -> None:
    base = toy.stages["numbers"]

    class Guarded(base):  # type: ignore[misc, valid-type]
        def run(self, partition: Any, context: Any) -> None:
            super().run(partition, context)
            context.report = {"made": partition.id}
            if guard == "run" and partition.id == "00001":
                raise UserError("this cannot be")

        def on_commit(self, reports: Any) -> None:
            if guard == "on_commit" and len(reports) == self.config.count:
                raise UserError("this cannot be")

        def finish(self, context: Any) -> None:
            super().finish(context)
            if guard == "finish":
                raise UserError("this cannot be")

    Guarded.executor = executor
    toy.stages["numbers"] = Guarded
    workspace = toy.workspace()
    for _ in range(3):
        with pytest.raises(UserError, match="this cannot be"):
            toy.make(workspace, "numbers")
        assert workspace.artifact(workspace.dag["numbers"]) is None
    assert guard == "run" or len(workspace.artifact_dir(workspace.dag["numbers"]).committed()) == 4


def test_a_list_that_cannot_be_read_is_refused_by_every_run(ray_session: None, tmp_path: Path) -> None:
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 not really")
    _refused(_ingest(tmp_path, [str(tmp_path / "bad.parquet")]), "ingest[mine]", "1 of 1 files cannot be read")
    # Allowing it is the user's to say, and then nothing is read again.
    _run(_ingest(tmp_path, [str(tmp_path / "bad.parquet")], max_bad_files=1), "ingest[mine]")


def test_a_list_without_a_pair_is_refused_by_every_run(ray_session: None, tmp_path: Path) -> None:
    (tmp_path / "list.tsv").write_text("no tab\nnone here either\n")
    _refused(_ingest(tmp_path, [str(tmp_path / "list.tsv")], "cc3m"), "ingest[mine]", "none of 2 rows is a pair")


def test_a_download_that_collapsed_with_its_last_images_is_refused_by_every_run(
    ray_session: None, tmp_path: Path
) -> None:
    """The rate over all images is fine, so that only the newest partitions say so."""
    picture = io.BytesIO()
    Image.new("RGB", (64, 64), "green").save(picture, "PNG")
    lines = ["path\tcaption"] + [f"{n}.png\ta caption" for n in range(40)]
    (tmp_path / "list.tsv").write_text("\n".join(lines) + "\n")
    (tmp_path / "images").mkdir()
    fields = {"images": str(tmp_path / "images")}
    workspace = _ingest(tmp_path, [str(tmp_path / "list.tsv")], "table", fields=fields, pairs_per_file=10)
    ingest = workspace.dag["ingest[mine]"]
    _run(workspace, ingest.id)
    config = DownloadConfig(name="mine", source=ingest.config.source, watch_after=20, min_success_rate=0.3)
    download = Node(Download, "mine", config, {"pairs": (ingest.id,)})
    dag: Dag = {ingest.id: ingest, download.id: download}
    workspace = Workspace(dag, workspace.store)
    inputs = {"pairs": (workspace.artifact(ingest),)}
    stage, folder = Download(config), workspace.artifact_dir(download)
    job = ArtifactJob(
        download.id, stage, workspace.require(download), folder.url, inputs, str(tmp_path / "scratch"), {}
    )  # type: ignore[arg-type]
    plan = stage.partitions(job.inputs)
    # The first partitions of the plan are the last ones made, and those whose files are not there.
    for number, partition in enumerate([*plan[2:], *plan[:2]]):
        with job.inputs["pairs"][0].open(partition.spec["pairs"]) as table:
            names = pq.read_table(table)["path"].to_pylist()
        for name in names if number < len(plan) - 2 else ():
            (tmp_path / "images" / name).write_bytes(picture.getvalue())
        run_partition(job, partition)
    _refused(workspace, download.id, "only 0 of the last 20 images")


def test_commits_are_in_the_order_in_which_they_were_made_also_in_an_object_store(tmp_path: Path) -> None:
    for folder in (ArtifactDir(str(tmp_path / "a")), ArtifactDir("memory://bucket/order")):
        for name in ("b", "c", "a"):
            folder.commit(name, Commit([], [], {}))
            time.sleep(0.01)
        assert folder.in_order({"a", "b", "c"}, ["a", "b", "c"]) == ["b", "c", "a"]
