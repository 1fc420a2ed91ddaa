"""The runner makes what is missing, commits each partition once, and gives the same bytes however it was cut short."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest


def tree(folder: str | Path) -> dict[str, bytes]:
    files = {p.relative_to(folder).as_posix(): p for p in Path(folder).rglob("*") if p.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if name not in ("run.json", "_lock")}


def test_all_three_executors_make_sealed_artifacts(toy: Any) -> None:
    workspace = toy.workspace()
    assert toy.make(workspace) == ["numbers", "upper", "total"]
    total = workspace.artifact(workspace.dag["total"])
    assert total.path("total.txt").read_text() == "10"
    numbers = workspace.artifact(workspace.dag["numbers"])
    assert numbers.counts == {"rows": 4}
    assert numbers.names() == ["all.txt", *(f"n-{i:05}.txt" for i in range(4))]
    left = {p.name for p in Path(numbers.url).iterdir()}
    assert left == {*numbers.names(), "manifest.json", "run.json", "_lock"}


def test_nothing_runs_twice(toy: Any) -> None:
    toy.make(toy.workspace())
    assert toy.make(toy.workspace()) == []


def test_a_changed_key_reruns_its_stage_and_what_follows_only(toy: Any) -> None:
    toy.make(toy.workspace())
    assert toy.make(toy.workspace(upper={"word": "b"})) == ["upper", "total"]


def test_a_failed_partition_keeps_the_others_and_the_rerun_makes_only_it(toy: Any) -> None:
    broken = toy.workspace(numbers={"fail_at": "00002"})
    with pytest.raises(Exception, match="partition 00002 cannot be made"):
        toy.make(broken)
    artifact_dir = broken.artifact_dir(broken.dag["numbers"])
    assert artifact_dir.artifact() is None
    assert "00000" in artifact_dir.committed()
    assert broken.state(broken.dag["numbers"]).standing == "partly done"
    assert toy.tracker.events[-1][:2] == ("node_failed", "numbers")


def test_an_interrupted_artifact_equals_an_uninterrupted_one_byte_for_byte(toy: Any, tmp_path: Path) -> None:
    whole = toy.workspace()
    toy.make(whole, "numbers")
    url = whole.artifact_dir(whole.dag["numbers"]).url
    expected = tree(url)
    # Put the folder back into the state a kill leaves: two commits, a half-written partition, a half-written finish.
    from pipelines.run_partition import ArtifactJob, run_partition

    again = type(toy)(tmp_path / "again")
    workspace = again.workspace()
    node = workspace.dag["numbers"]
    artifact_dir = workspace.artifact_dir(node)
    job = ArtifactJob(
        node.id, node.stage(node.config), workspace.require(node), artifact_dir.url, {}, str(tmp_path / "s"), {}
    )
    plan = job.stage.partitions({})
    artifact_dir.write("_plan.json", json.dumps([p.id for p in plan]))
    for partition in plan[1:3]:
        run_partition(job, partition)
    Path(artifact_dir.url, "n-00000.txt").write_text("torn")
    Path(artifact_dir.url, "all.txt").write_text("torn")
    assert again.make(workspace, "numbers") == ["numbers"]
    assert tree(artifact_dir.url) == expected
    run = json.loads(Path(artifact_dir.url, "run.json").read_text())
    assert (run["partitions_run"], run["partitions"]) == (2, 4)


def test_status_names_the_changed_key_and_the_changed_input(toy: Any) -> None:
    toy.make(toy.workspace())
    changed = toy.workspace(numbers={"word": "b"})
    states = {state.node.id: state for state in changed.states()}
    assert (states["numbers"].standing, states["numbers"].why) == ("stale", "numbers.word: a → b")
    assert (states["upper"].standing, states["upper"].why) == ("stale", "input numbers changed")
    assert {s.standing for s in toy.workspace().states()} == {"up to date"}


def test_an_artifact_being_made_is_refused_to_a_second_run(toy: Any) -> None:
    from stages.base.contract import UserError

    workspace = toy.workspace()
    with (
        workspace.artifact_dir(workspace.dag["numbers"]).lock(),
        pytest.raises(UserError, match="another pairmill run"),
    ):
        toy.make(workspace, "numbers")


def test_a_killed_worker_is_replaced_and_its_partition_made_again(toy: Any, tmp_path: Path) -> None:
    import os
    import signal

    stage = toy.stages["numbers"]
    marker = tmp_path / "killed-once"

    class Suicidal(stage):  # type: ignore[misc, valid-type]
        def run(self, partition: Any, context: Any) -> None:
            if partition.id == "00001" and not marker.exists():
                marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            super().run(partition, context)

    toy.make(toy.workspace(), "numbers")
    expected = tree(toy.workspace().artifact_dir(toy.workspace().dag["numbers"]).url)
    again = type(toy)(tmp_path / "again")
    again.stages["numbers"] = Suicidal
    workspace = again.workspace()
    again.make(workspace, "numbers")
    assert marker.exists()
    assert tree(workspace.artifact_dir(workspace.dag["numbers"]).url) == expected


def test_a_workspace_may_be_an_fsspec_url(tmp_path: Path) -> None:
    """Commits, finish and seal through fsspec (its in-memory file system, one process)."""
    from pipelines.run_partition import ArtifactJob, close, run_partition
    from pipelines.store import ArtifactDir

    conftest = __import__("sys").modules[next(n for n in __import__("sys").modules if n.endswith("pipelines.conftest"))]
    stage = conftest.toy_stages()["numbers"](conftest.ToyConfig())
    artifact_dir = ArtifactDir("memory://bucket/artifacts/numbers/abc")
    job = ArtifactJob("numbers", stage, "f" * 64, artifact_dir.url, {}, str(tmp_path / "s"), {})
    plan = stage.partitions({})
    for partition in plan:
        run_partition(job, partition)
    assert artifact_dir.committed() == {p.id for p in plan}
    artifact = close(job, [p.id for p in plan], {"stage": "numbers", "fingerprint": "f" * 64}, {})
    assert artifact.open("all.txt").read() == b"0,1,2,3"
    assert artifact.counts == {"rows": 4}
    assert artifact_dir.committed() == set()


@pytest.mark.parametrize("executor", ["ray_tasks", "ray_data"])
def test_a_stage_that_goes_badly_stops_and_keeps_what_is_committed(toy: Any, executor: str) -> None:
    from stages.base.contract import UserError

    base = toy.stages["numbers"]

    class Watched(base):  # type: ignore[misc, valid-type]
        def run(self, partition: Any, context: Any) -> None:
            super().run(partition, context)
            context.report = {"made": 1}

        def on_commit(self, reports: Any) -> None:
            made = sum(report["made"] for report in reports)
            if made >= self.config.count // 2:
                raise UserError(f"{made} were enough")

    Watched.executor = executor
    toy.stages["numbers"] = Watched
    workspace = toy.workspace(count=12)
    with pytest.raises(UserError, match="6 were enough"):
        toy.make(workspace, "numbers")
    artifact_dir = workspace.artifact_dir(workspace.dag["numbers"])
    assert artifact_dir.artifact() is None
    assert len(artifact_dir.committed()) >= 6
    # Once the user allows it, the run goes on from there, and the reports leave no trace in the artifact.
    toy.stages["numbers"] = base
    base.executor = executor
    again = toy.workspace(count=12)
    toy.make(again, "numbers")
    artifact = again.artifact(again.dag["numbers"])
    assert artifact.counts == {"rows": 12}
    assert "made" not in Path(artifact.url, "manifest.json").read_text()


def test_a_stage_of_array_operations_alone_starts_no_cluster(toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines import ray_session

    toy.make(toy.workspace())
    toy.stages["total"].needs_ray = lambda self, inputs: False
    started: list[Any] = []
    monkeypatch.setattr(ray_session, "start", lambda *words: started.append(words))
    assert toy.make(toy.workspace(total={"word": "b"})) == ["total"]
    assert started == []
    assert toy.make(toy.workspace(upper={"word": "b"}, total={"word": "b"})) == ["upper", "total"]
    assert len(started) == 1


def test_all_reports_are_judged_though_not_after_every_commit_of_many(toy: Any) -> None:
    base = toy.stages["numbers"]
    calls: list[int] = []

    class Watched(base):  # type: ignore[misc, valid-type]
        executor = "driver"

        def run(self, partition: Any, context: Any) -> None:
            context.report = {"made": partition.id}

        def on_commit(self, reports: Any) -> None:
            assert len({report["made"] for report in reports}) == len(reports)
            calls.append(len(reports))

        def finish(self, context: Any) -> None:
            return

    toy.stages["numbers"] = Watched
    toy.make(toy.workspace(count=452), "numbers")
    assert calls[:100] == list(range(1, 101))
    assert calls[-1] == 452
    assert len(calls) < 300
    assert max(later - earlier for earlier, later in pairwise(calls)) <= 5
