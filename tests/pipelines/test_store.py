"""The runner's bookkeeping at many partitions: records and parts are read as they are needed, in order."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.run_partition import ArtifactJob, close, planned, run_partition
from pipelines.store import ArtifactDir, Commit, Store, in_threads
from stages.base.artifact import Artifact
from stages.base.contract import Inputs, Partition, Stage, StageConfig, StageContext


class Config(StageConfig):
    pass


class Parts(Stage[Config]):
    """Leaves two parts per partition and reads one kind of them."""

    name = "parts"
    holds_samples = False
    seen: list[int] = []

    def plan(self, context: StageContext) -> list[Partition]:
        kept = Path(context.scratch) / "plan.json"
        if not kept.exists():
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(json.dumps([f"{number:02d}" for number in (8, 9, 10, 99, 100, 101)]))
        return [Partition(id) for id in json.loads(kept.read_text())]

    def run(self, partition: Partition, context: StageContext) -> None:
        (context.intermediate / f"a-{partition.id}.txt").write_text(partition.id)
        (context.intermediate / f"b-{partition.id}.txt").write_text("other")
        context.count("made")

    def finish(self, context: StageContext) -> None:
        ids = []
        for path in context.parts("a-*.txt"):
            ids.append(path.read_text())
            self.seen.append(len(list(context.intermediate.rglob("*.txt"))))
        (context.out / "all.txt").write_text(" ".join(ids))


class Singly(Parts):
    name = "singly"
    reads_parts_singly = True


def make(stage: Stage[Any], url: str, scratch: Path) -> Artifact:
    job = ArtifactJob(stage.name, stage, "f" * 64, url, {}, str(scratch), {})
    plan = planned(job)
    for partition in reversed(plan):
        run_partition(job, partition)
    # Of an earlier plan: not committed, so no part of the artifact.
    orphan = Path(url, "_parts", "a-77.txt")
    if "://" not in url:
        orphan.write_text("77")
    assert planned(job) == plan
    return close(job, [partition.id for partition in plan], {"fingerprint": "f" * 64}, {})


@pytest.mark.parametrize("remote", [False, True])
def test_parts_come_singly_and_in_order_of_the_plan(remote: bool, tmp_path: Path) -> None:
    url = f"memory://parts/{tmp_path.name}" if remote else str(tmp_path / "artifact")
    Singly.seen.clear()
    artifact = make(Singly(Config()), url, tmp_path / "scratch")
    assert artifact.open("all.txt").read() == b"08 09 10 99 100 101"
    assert artifact.counts == {"made": 6}
    assert max(Singly.seen) <= (6 if remote else 0)  # what is fetched ahead, and nothing of the other kind
    assert Singly.seen[-1] == (1 if remote else 0)
    assert not (tmp_path / "scratch").exists()
    assert remote or sorted(path.name for path in Path(url).iterdir()) == ["all.txt", "manifest.json", "run.json"]


def test_a_stage_that_does_not_say_so_finds_all_parts_in_its_folder(tmp_path: Path) -> None:
    Parts.seen.clear()
    artifact = make(Parts(Config()), str(tmp_path / "artifact"), tmp_path / "scratch")
    assert artifact.path("all.txt").read_text() == "08 09 10 100 101 99"
    assert set(Parts.seen) == {12}


def test_a_file_that_two_partitions_wrote_is_an_error(tmp_path: Path) -> None:
    class Same(Parts):
        name = "same"

        def run(self, partition: Partition, context: StageContext) -> None:
            super().run(partition, context)
            (context.out / "same.txt").write_text("same")

    with pytest.raises(RuntimeError, match=r"several partitions wrote same\.txt"):
        make(Same(Config()), str(tmp_path / "artifact"), tmp_path / "scratch")


def test_records_are_read_in_order_and_few_ahead(tmp_path: Path) -> None:
    store = ArtifactDir("memory://commits/many")
    ids = [f"{number:04d}" for number in range(300)]
    for id in ids:
        store.commit(id, Commit([], [], {"n": int(id)}))
    asked = 0

    def plan() -> Iterator[str]:
        nonlocal asked
        for asked, id in enumerate(ids, 1):  # noqa: B007
            yield id

    read = store.read_commits(plan())
    assert next(read).counts == {"n": 0}
    assert asked < 100
    assert [commit.counts["n"] for commit in read] == list(range(1, 300))
    with pytest.raises(FileNotFoundError, match="partition 9999 has no commit"):
        list(store.read_commits(["0000", "9999"]))


def test_threads_work_side_by_side_and_give_results_in_order() -> None:
    together = threading.Barrier(4, timeout=10)

    def wait(value: int) -> int:
        together.wait()
        time.sleep(0.001 * (4 - value % 4))
        return value

    assert list(in_threads(wait, range(16), 4)) == list(range(16))


def test_an_artifact_is_handed_to_workers_without_its_list_of_files(tmp_path: Path) -> None:
    import pickle

    (tmp_path / "manifest.json").write_text(json.dumps({"fingerprint": "f", "files": [{"name": "x" * 1000}]}))
    artifact = Artifact(str(tmp_path))
    assert artifact.names() == ["x" * 1000]
    copy = pickle.loads(pickle.dumps(artifact))
    assert len(pickle.dumps(artifact)) < 300
    assert (copy, copy.names()) == (artifact, artifact.names())


def test_a_stage_without_a_plan_says_so() -> None:
    class Nothing(Stage[Config]):
        name = "nothing"
        holds_samples = False

        def run(self, partition: Partition, context: StageContext) -> None:
            return

    inputs: Inputs = {}
    with pytest.raises(NotImplementedError, match="Nothing implements neither"):
        Nothing(Config()).partitions(inputs)


def test_a_relative_scratch_folder_is_the_same_for_every_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert Store("workspace").scratch("index", "a" * 64, "fast/disk") == tmp_path / "fast/disk" / f"index-{'a' * 12}"
