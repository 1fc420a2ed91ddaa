"""Stages that the pipeline did not have before forget like the others: from their declarations alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from pipelines.cluster import ClusterConfig
from pipelines.forgetting.forget import ForgetResult, forget
from pipelines.forgetting.forget_list import read_forget_list
from pipelines.lineage import Lineage
from pipelines.node import Dag, Node
from pipelines.progress import Progress
from pipelines.runner import Runner, pending
from pipelines.state import Workspace
from pipelines.store import Commit, Store
from stages.base.artifact import Artifact, file_sha256
from stages.base.contract import Inputs, Partition, Stage, StageConfig, StageContext, UserError
from stages.base.forgetting import ForgetInputs, Forgotten, Removal, split_parquet, write_parquet

ROWS = [(f"{n:032x}", f"{n // 2 + 100:032x}", f"http://x.test/{n // 2}.jpg", "a" * (n + 1)) for n in range(6)]


class Captions(Stage[StageConfig]):
    """Defines pairs."""

    name = "captions"
    executor = "driver"
    holds_samples = True

    def partitions(self, inputs: Inputs) -> Sequence[Partition]:
        return [Partition("all")]

    def needs_ray(self, inputs: Inputs | None) -> bool:
        return False

    def run(self, partition: Partition, context: StageContext) -> None:
        columns = dict(zip(("uid", "image_uid", "url", "caption"), map(list, zip(*ROWS, strict=True)), strict=True))
        pq.write_table(pa.table(columns), context.out / "captions.parquet")
        context.count("pairs", len(ROWS))

    @classmethod
    def forget(cls, artifact: Artifact, inputs: ForgetInputs, forgotten: Forgotten, out: Path | None) -> Removal:
        removal = Removal()
        for name, kept, removed in split_parquet(artifact, "captions.parquet", "uid", forgotten.pair_mask):
            write_parquet(kept, out, name)
            removal.rewritten.append(name)
            removal.samples += removed.num_rows
            removal.counts["pairs"] -= removed.num_rows
        return removal


class Lengths(Stage[StageConfig]):
    """A figure per caption, which names its caption by position only: it must forget before `captions` does."""

    name = "lengths"
    executor = "driver"
    holds_samples = True
    forget_before = ("captions",)

    def partitions(self, inputs: Inputs) -> Sequence[Partition]:
        return [Partition("all")]

    def needs_ray(self, inputs: Inputs | None) -> bool:
        return False

    def run(self, partition: Partition, context: StageContext) -> None:
        table = pq.read_table(context.input("captions").path("captions.parquet"))
        (context.out / "lengths.json").write_text(json.dumps(pc.utf8_length(table["caption"]).to_pylist()))

    @classmethod
    def forget(cls, artifact: Artifact, inputs: ForgetInputs, forgotten: Forgotten, out: Path | None) -> Removal:
        (captions,) = inputs["captions"]
        assert captions is not None
        lost = forgotten.pair_mask(pq.read_table(captions.path("captions.parquet"))["uid"]).to_pylist()
        lengths = artifact.read_json("lengths.json")
        if len(lengths) == len(lost) - sum(lost):
            return Removal()
        assert len(lengths) == len(lost), "captions were rewritten first"
        if out is not None:
            left = [length for length, is_lost in zip(lengths, lost, strict=True) if not is_lost]
            (out / "lengths.json").write_text(json.dumps(left))
        return Removal(samples=sum(lost), rewritten=["lengths.json"])


STAGES = (Captions, Lengths)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A workspace that the runner made with these stages."""
    captions = Node(Captions, "", StageConfig())
    lengths = Node(Lengths, "", StageConfig(), {"captions": ("captions",)})
    dag: Dag = {node.id: node for node in (captions, lengths)}
    workspace = Workspace(dag, Store(str(tmp_path / "workspace")))

    class NoTracker:
        def __getattr__(self, name: str) -> Any:
            return lambda *args, **kwargs: None

    todo = pending(workspace, ["lengths"])
    with Progress() as progress:
        Runner(workspace, ClusterConfig(cpus=1), NoTracker(), progress, False).run(todo)  # type: ignore[arg-type]
    return workspace.store


def forgetting(store: Store, *entries: str, stages: Any = STAGES) -> ForgetResult:
    return forget(store, read_forget_list(entries, "list"), None, dry_run=False, stages=stages)


def artifact(store: Store, stage: str) -> Artifact:
    (folder,) = Path(store.workspace, "artifacts", stage).iterdir()
    return Artifact(str(folder))


def test_a_new_stages_artifact_is_rewritten_in_the_order_it_declares(store: Store) -> None:
    result = forgetting(store, "http://x.test/1.jpg", ROWS[5][0])
    assert [(a.manifest["stage"], r.samples) for a, r in result.removals] == [("lengths", 3), ("captions", 3)]
    assert artifact(store, "lengths").read_json("lengths.json") == [1, 2, 5]
    left = pq.read_table(artifact(store, "captions").path("captions.parquet"))
    assert left["caption"].to_pylist() == ["a", "aa", "aaaaa"]
    for stage in ("captions", "lengths"):
        manifest = artifact(store, stage).manifest
        assert manifest["forgotten"] == 3
        for entry in manifest["files"]:
            assert file_sha256(artifact(store, stage).path(entry["name"])) == entry["sha256"]
    assert forgetting(store, ROWS[5][0]).removals == []


def test_artifacts_of_a_stage_that_is_not_in_the_pipeline_are_refused_not_passed_over(store: Store) -> None:
    before = {p: p.read_bytes() for p in Path(store.workspace).rglob("*") if p.is_file()}
    with pytest.raises(UserError, match="made by a stage that this version does not have") as error:
        forgetting(store, ROWS[0][0], stages=(Captions,))
    assert artifact(store, "lengths").url in str(error.value)
    assert "\n" not in str(error.value)
    assert {p: p.read_bytes() for p in Path(store.workspace).rglob("*") if p.is_file()} == before


def test_scratch_of_a_stage_that_is_not_in_the_pipeline_is_refused_too(store: Store) -> None:
    scratch = store.scratch("older", "a" * 64)
    scratch.mkdir(parents=True)
    forgetting(store, "0" * 31 + "f")  # empty: it holds nothing
    (scratch / "caption.txt").write_text("a")
    with pytest.raises(UserError, match="older-aaaaaaaaaaaa: made by a stage"):
        forgetting(store, ROWS[0][0])


def unfinished(store: Store, stage: str, files: dict[str, Any]) -> Path:
    """An artifact with a committed partition per file."""
    artifact_dir = store.artifact_dir(stage, "", "e" * 64)
    folder = Path(artifact_dir.url)
    folder.mkdir(parents=True)
    for name, content in files.items():
        if isinstance(content, pa.Table):
            pq.write_table(content, folder / name)
        else:
            (folder / name).write_text(content)
        artifact_dir.commit(name.partition(".")[0], Commit([{"name": name}], [], {}))
    return folder


def test_unfinished_partitions_of_a_new_stage_are_dropped_unless_it_declares_them_independent(store: Store) -> None:
    clean, held = (pa.table({"uid": [ROWS[n][0]]}) for n in (0, 1))
    files = {"clean.parquet": clean, "held.parquet": held, "opaque.json": "[]"}
    unfinished(store, "captions", files)
    assert forgetting(store, ROWS[1][0]).partitions == 3

    class Independent(Captions):
        name = "independent"
        keeps_clean_partitions = True

    folder = unfinished(store, "independent", files)
    # What names no sample is not shown to be clean.
    assert forgetting(store, ROWS[1][0], stages=(*STAGES, Independent)).partitions == 2
    assert {p.name for p in folder.iterdir() if p.suffix} == {"clean.parquet"}


def test_scratch_is_emptied_where_a_stage_holds_samples_and_left_where_it_holds_none(store: Store) -> None:
    marks: set[str] = set()

    class Careful(Captions):
        name = "careful"

        @classmethod
        def forget_scratch(cls, scratch: Path, given: AbstractSet[str]) -> None:
            marks.update(given)

    class Weights(Captions):
        name = "weights"
        holds_samples = False
        forget = Stage.__dict__["forget"]

    names = ("captions", "careful", "weights")
    folders = [store.scratch(name, "a" * 64) for name in names]
    foreign = folders[0].with_name("captions-of-someone")
    for folder in (*folders, foreign):
        folder.mkdir(parents=True)
        (folder / "file").write_text("x")
    forgetting(store, ROWS[1][0], stages=(*STAGES, Careful, Weights))
    assert [folder.exists() for folder in (*folders, foreign)] == [False, True, True, True]
    assert {ROWS[1][0], ROWS[1][1]} <= marks


def test_models_of_a_new_training_stage_are_named(store: Store) -> None:
    class Distill(Captions):
        name = "distill"
        registers = True
        holds_samples = False
        forget = Stage.__dict__["forget"]

    captions = artifact(store, "captions").fingerprint
    manifest = {"stage": "distill", "node": "distill[small]", "inputs": {"captions": [captions]}, "files": []}
    store.artifact_dir("distill", "small", "d" * 64).seal({**manifest, "fingerprint": "d" * 64}, {})
    lineage = Lineage(store, (*STAGES, Distill))
    assert [model.node for model in lineage.models([captions])] == ["distill[small]"]
